#pragma once

#include <limits>
#include <string>

#include <reel/optim/clip.h>
#include <reel/optim/run_state.h>

namespace reel::char_lm {

/// A larger mean loss, in nats per symbol, is that of a training that diverged.
constexpr double largest_loss = 1e6;

/// The progress of a training: all of its state that is numbers and not tensors.
struct Progress {
  /// In place of a loss that there is not.
  static constexpr double none = std::numeric_limits<double>::infinity();

  Index step = 0;           ///< steps taken
  Index epoch = 1;          ///< the current one
  Index window = 0;         ///< the next window of the epoch
  double epoch_loss = 0;    ///< sum over the steps of the epoch
  double recent_loss = 0;   ///< sum over the steps since the last hundred
  double grad_norm = 0;     ///< at the last step
  double best_loss = none;  ///< the best validation loss
  Index best_epoch = 0;     ///< its epoch; 0 for none
  Index metrics_lines = 0;  ///< written so far
  // Runs of earlier versions have none of these.
  Index skipped = 0, epoch_skipped = 0, recent_skipped = 0,
        skipped_in_row = 0;       ///< steps without an update, as their loss was not finite
  Index carried_from = 0;         ///< the window of the epoch that began with a state of zeros
  Index rollbacks = 0;            ///< returns to an earlier step
  double rate_factor = 1;         ///< of the learning rate, after these
  double test_loss = none;        ///< once the training is at its end, if there is text to test on
  optim::ClipCount epoch_clips;   ///< over the steps of the epoch
  optim::ClipCount recent_clips;  ///< since the last hundred

  /// The updates of the parameters so far.
  Index updates() const { return step - skipped; }

  bool is_tested() const { return test_loss != none; }

  /// The next epoch, from its first window on.
  void begin_epoch() {
    ++epoch;
    window = carried_from = epoch_skipped = 0;
    epoch_loss = 0;
    epoch_clips = {};
  }
  /// The next hundred steps.
  void begin_hundred() {
    recent_loss = 0;
    recent_skipped = 0;
    recent_clips = {};
  }
};

/// Calls f(name, member) for each that every version has.
template <class P, class F>
void each_number(P& p, F&& f) {
  f("step", p.step);
  f("epoch", p.epoch);
  f("window", p.window);
  f("epoch_loss", p.epoch_loss);
  f("recent_loss", p.recent_loss);
  f("grad_norm", p.grad_norm);
  f("best_loss", p.best_loss);
  f("best_epoch", p.best_epoch);
  f("metrics_lines", p.metrics_lines);
}

/// Calls f(name, member) for each of the others.
template <class P, class F>
void each_recent_number(P& p, F&& f) {
  f("skipped", p.skipped);
  f("epoch_skipped", p.epoch_skipped);
  f("recent_skipped", p.recent_skipped);
  f("skipped_in_row", p.skipped_in_row);
  f("carried_from", p.carried_from);
  f("rollbacks", p.rollbacks);
  f("rate_factor", p.rate_factor);
  f("test_loss", p.test_loss);
  const auto clips = [&](const std::string& name, auto& count) {
    f(name + ".steps", count.steps);
    f(name + ".clipped", count.clipped);
    f(name + ".mean_norm", count.mean_norm);
    f(name + ".largest_norm", count.largest_norm);
  };
  clips("epoch_clips", p.epoch_clips);
  clips("recent_clips", p.recent_clips);
}

/// The numbers for a checkpoint.
std::map<std::string, double, std::less<>> numbers_of(const Progress& progress);
/// The number of metrics lines up to there: one after every 100 steps and one after every epoch.
Index lines_due(const Progress& at);
/// The progress in a checkpoint. Throws ValueError if a number is missing or unexpected, or if they
/// are inconsistent.
Progress progress_of(const optim::RunState& checkpoint);

}  // namespace reel::char_lm
