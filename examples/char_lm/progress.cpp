#include "progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "words.h"

namespace reel::char_lm {

namespace {

// Checks what must hold for every text; whether the windows match a text is checked by the
// training.
void require_consistent(const Progress& at) {
  const auto require = [](bool right, std::string_view what) {
    if (!right) throw ValueError(fmt::format("its position is impossible in a training: {}", what));
  };
  const Index epochs = at.epoch - 1;  // the completed ones
  const Index steps = at.step - at.window;
  require(at.epoch >= 1 && epochs <= 1'000'000, fmt::format("epoch {}", at.epoch));
  require(steps >= 0 && (epochs == 0 ? steps == 0 : steps >= epochs && steps % epochs == 0),
          fmt::format("step {}, window {} of epoch {}", at.step, at.window, at.epoch));
  // A line after 100 steps that could not be written is not counted, and is written when training
  // resumes.
  const Index missing = lines_due(at) - at.metrics_lines;
  require(
      missing == 0 || (missing == 1 && at.window > 0 && at.step % 100 == 0),
      fmt::format("{} after step {}", counted(at.metrics_lines, "line") + " of metrics", at.step));
  const Index recent = missing == 1 ? 100 : at.step % 100;
  const auto is_sum = [](double loss, Index steps) {
    return loss >= 0 && loss <= largest_loss * static_cast<double>(steps);
  };
  require(is_sum(at.epoch_loss, at.window),
          fmt::format("a loss of {} in {} windows", number(at.epoch_loss), at.window));
  require(is_sum(at.recent_loss, recent),
          fmt::format("a loss of {} in the last {} steps", number(at.recent_loss), recent));
  require(at.grad_norm >= 0 && std::isfinite(at.grad_norm),
          fmt::format("a gradient of norm {}", number(at.grad_norm)));
  require(at.best_epoch == 0
              ? at.best_loss == Progress::none
              : (at.best_epoch <= epochs || at.rollbacks > 0) && is_sum(at.best_loss, 1),
          fmt::format("a best loss of {} in epoch {}", number(at.best_loss), at.best_epoch));
  require(!at.is_tested() || (at.window == 0 && epochs > 0 && is_sum(at.test_loss, 1)),
          fmt::format("a loss of {} on the text to test on", number(at.test_loss)));
  require(at.skipped <= at.step && at.epoch_skipped <= std::min(at.skipped, at.window) &&
              at.recent_skipped <= std::min(at.skipped, recent) && at.skipped_in_row <= at.skipped,
          fmt::format("{} skipped, {} of them in the epoch, {} in the last {}",
                      counted(at.skipped, "step"), at.epoch_skipped, at.recent_skipped, recent));
  require(at.carried_from <= at.window,
          fmt::format("a state carried from window {}, at {}", at.carried_from, at.window));
  require(at.rate_factor > 0 && at.rate_factor <= 1,
          fmt::format("a learning rate times {}", number(at.rate_factor)));
  for (const optim::ClipCount& clips : {at.epoch_clips, at.recent_clips})
    require(clips.clipped <= clips.steps && clips.steps <= at.step && clips.mean_norm >= 0 &&
                clips.mean_norm <= clips.largest_norm && std::isfinite(clips.largest_norm),
            fmt::format("{} of {} clipped, of norms up to {}", clips.clipped,
                        counted(clips.steps, "gradient"), number(clips.largest_norm)));
}

template <class T>
void read(const optim::RunState& checkpoint, const std::string& name, T& member) {
  const double value = checkpoint.number(name);
  if constexpr (std::is_same_v<T, Index>) {
    if (!(value >= 0 && value < 0x1p53 && value == std::floor(value)))
      throw ValueError(fmt::format("its {} is {}, not a count", name, number(value)));
    member = static_cast<Index>(value);
  } else {
    if (std::isnan(value)) throw ValueError(fmt::format("its {} is not a number", name));
    member = value;
  }
}

}  // namespace

std::map<std::string, double, std::less<>> numbers_of(const Progress& progress) {
  std::map<std::string, double, std::less<>> numbers;
  const auto add = [&](const std::string& name, auto number) {
    numbers.emplace(name, static_cast<double>(number));
  };
  each_number(progress, add);
  each_recent_number(progress, add);
  return numbers;
}

Index lines_due(const Progress& at) { return at.step / 100 + at.epoch - 1; }

Progress progress_of(const optim::RunState& checkpoint) {
  Progress progress;
  std::size_t count = 0;
  each_number(progress, [&](const std::string& name, auto& member) {
    read(checkpoint, name, member);
    ++count;
  });
  each_recent_number(progress, [&](const std::string& name, auto& member) {
    if (!checkpoint.numbers.contains(name)) return;
    read(checkpoint, name, member);
    ++count;
  });
  if (count != checkpoint.numbers.size())
    throw ValueError(
        fmt::format("it has {} numbers, but a training {}", checkpoint.numbers.size(), count));
  require_consistent(progress);
  return progress;
}

}  // namespace reel::char_lm
