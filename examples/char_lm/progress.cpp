#include "progress.h"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>

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
  require(at.window > 0 || at.epoch_loss == 0, "a loss before the first window of an epoch");
  for (const double number : {at.epoch_loss, at.recent_loss, at.grad_norm})
    require(std::isfinite(number), fmt::format("a loss or norm of {}", number));
  require(at.best_epoch <= epochs && (at.best_epoch > 0) == std::isfinite(at.best_loss),
          fmt::format("a best loss of {} in epoch {}", at.best_loss, at.best_epoch));
  // A line that could not be written is not counted, and is written when training resumes.
  const Index missing = lines_due(at) - at.metrics_lines;
  require(missing == 0 || (missing == 1 && at.step > 0 && at.step % 100 == 0),
          fmt::format("{} lines of metrics after step {}", at.metrics_lines, at.step));
}

}  // namespace

std::map<std::string, double, std::less<>> numbers_of(const Progress& progress) {
  std::map<std::string, double, std::less<>> numbers;
  each_number(progress, [&](const char* name, auto number) {
    numbers.emplace(name, static_cast<double>(number));
  });
  return numbers;
}

Index lines_due(const Progress& at) { return at.step / 100 + at.epoch - 1; }

Progress progress_of(const optim::RunState& checkpoint) {
  Progress progress;
  std::size_t count = 0;
  each_number(progress, [&](const char* name, auto& member) {
    const double number = checkpoint.number(name);
    if constexpr (std::is_same_v<decltype(member), Index&>) {
      if (!(number >= 0 && number < 0x1p53 && number == std::floor(number)))
        throw ValueError(fmt::format("its {} is {}, not a count", name, number));
      member = static_cast<Index>(number);
    } else {
      if (std::isnan(number)) throw ValueError(fmt::format("its {} is not a number", name));
      member = number;
    }
    ++count;
  });
  if (count != checkpoint.numbers.size())
    throw ValueError(
        fmt::format("it has {} numbers, but a training {}", checkpoint.numbers.size(), count));
  require_consistent(progress);
  return progress;
}

}  // namespace reel::char_lm
