#pragma once

#include <limits>

#include <reel/optim/run_state.h>

namespace reel::char_lm {

/// A larger mean loss, in nats per symbol, is that of a training that diverged.
constexpr double largest_loss = 1e6;

/// The progress of a training: all of its state that is numbers and not tensors.
struct Progress {
  Index step = 0;          ///< steps taken
  Index epoch = 1;         ///< the current one
  Index window = 0;        ///< the next window of the epoch
  double epoch_loss = 0;   ///< sum over the steps of the epoch
  double recent_loss = 0;  ///< sum over the steps since the last hundred
  double grad_norm = 0;    ///< at the last step
  double best_loss = std::numeric_limits<double>::infinity();  ///< the best validation loss
  Index best_epoch = 0;                                        ///< its epoch; 0 for none
  Index metrics_lines = 0;                                     ///< written so far
};

/// Calls f(name, member) for each.
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

/// The numbers for a checkpoint.
std::map<std::string, double, std::less<>> numbers_of(const Progress& progress);
/// The number of metrics lines up to there: one after every 100 steps and one after every epoch.
Index lines_due(const Progress& at);
/// The progress in a checkpoint. Throws ValueError if a number is missing or unexpected, or if they
/// are inconsistent.
Progress progress_of(const optim::RunState& checkpoint);

}  // namespace reel::char_lm
