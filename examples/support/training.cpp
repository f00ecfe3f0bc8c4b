#include "training.h"

#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include <reel/autograd/error.h>
#include <reel/nn/files/atomic_file.h>

#include "system.h"

namespace reel::examples {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr std::string_view best_prefix = "best.", own_prefix = "own.";

double since(std::chrono::steady_clock::time_point start) {
  return Seconds(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Training::Training(const Params& params, optim::Optimizer& optimizer, Rng& rng,
                   TrainingOptions options)
    : params_(params), optimizer_(optimizer), rng_(rng), options_(std::move(options)) {
  if (options_.save.empty()) return;
  const nn::AtomicFile can_be_written(options_.save);  // or it throws, before any work
  if (nn::Location(options_.save).exists()) load();
}

bool Training::next() {
  if (epoch_ == options_.epochs) return false;
  ++epoch_;
  losses_ = {};
  epoch_start_ = std::chrono::steady_clock::now();
  return true;
}

void Training::step(Index i, Index steps, double loss, double weight) {
  if (!std::isfinite(loss))
    throw ValueError(fmt::format("the loss of step {} of epoch {} is {}: try a lower learning rate",
                                 i, epoch_, loss));
  losses_.add(loss, weight);
  static const bool redraws = can_redraw(stdout);
  if (!redraws || since(shown_) < 0.2) return;
  shown_ = std::chrono::steady_clock::now();
  std::cout << fmt::format("\repoch {}, step {} of {}, loss {:.4f}\x1b[K", epoch_, i + 1, steps,
                           losses_.mean())
            << std::flush;
}

void Training::end_epoch(double score, const std::string& what) {
  if (can_redraw(stdout)) std::cout << "\r\x1b[K";
  std::cout << fmt::format("epoch {:>3}  loss {:<8.4f}  {}  {:.1f} s\n", epoch_, losses_.mean(),
                           what, since(epoch_start_))
            << std::flush;
  const bool is_better =
      options_.better == optim::Better::smaller ? score < best_score_ : score > best_score_;
  if (best_epoch_ == 0 || is_better) {
    best_score_ = score;
    best_epoch_ = epoch_;
    best_ = nn::from_params(params_);
  }
  if (!options_.save.empty()) save();
}

double Training::best() const {
  if (best_epoch_ == 0) throw ValueError("there is no best epoch before the first one has ended");
  return best_score_;
}

void Training::load_best() {
  best();  // that there is one
  nn::load_params(best_, params_);
}

double Training::seconds() const { return seconds_before_ + since(start_); }

void Training::save() const {
  optim::RunState state{.params = nn::from_params(params_),
                        .optimizer = optimizer_.state(),
                        .rng = rng_.state(),
                        .numbers = {{"epoch", static_cast<double>(epoch_)},
                                    {"best_epoch", static_cast<double>(best_epoch_)},
                                    {"best_score", best_score_},
                                    {"seconds", seconds()}},
                        .texts = {{"settings", options_.settings}}};
  state.more.insert(best_prefix, best_);
  for (const auto& [name, number] : numbers_)
    state.numbers.emplace(std::string(own_prefix) + name, number);
  optim::save_run_state(options_.save, state);
}

void Training::load() {
  const optim::RunState state = optim::load_run_state(options_.save);
  const auto settings = state.texts.find("settings");
  if (settings == state.texts.end() || settings->second != options_.settings)
    throw ValueError(fmt::format(
        "{} is of a training with the settings\n  {}\nand not\n  {}\nGive those, or another --save",
        options_.save, settings == state.texts.end() ? "of another program" : settings->second,
        options_.settings));
  best_ = state.more.part(best_prefix);
  nn::load_params(best_, params_);  // that they fit
  nn::load_params(state.params, params_);
  optimizer_.restore(state.optimizer);
  rng_ = Rng(state.rng);
  epoch_ = static_cast<Index>(state.number("epoch"));
  best_epoch_ = static_cast<Index>(state.number("best_epoch"));
  best_score_ = state.number("best_score");
  seconds_before_ = state.number("seconds");
  for (const auto& [name, number] : state.numbers)
    if (name.starts_with(own_prefix)) numbers_[name.substr(own_prefix.size())] = number;
  std::cout << fmt::format("{}: goes on after epoch {} of {}\n", options_.save, epoch_,
                           options_.epochs);
}

nn::NamedTensors best_params_in(const std::string& save) {
  return optim::load_run_state(save).more.part(best_prefix);
}

}  // namespace reel::examples
