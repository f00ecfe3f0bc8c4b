#pragma once

#include <memory>
#include <optional>
#include <utility>

#include <reel/nn/functional_call.h>
#include <reel/optim/average.h>
#include <reel/optim/optimizer.h>
#include <reel/optim/reduce_on_plateau.h>
#include <reel/optim/run_state.h>
#include <reel/optim/schedule.h>

#include "settings.h"

namespace reel::char_lm {

/// The learning rates of a training of this many steps an epoch, without a reduction on a plateau.
optim::Schedule schedule_of(const Settings& settings, Index steps_per_epoch);

/// The values that a model has to predict with: the average of its weights, if the training keeps
/// one, otherwise the weights themselves.
nn::NamedTensors weights_of(const optim::RunState& checkpoint, const Params& params);

/// How a training changes the parameters: the optimizer, its learning rate, and the average of the
/// weights.
class Updates {
 public:
  Updates(const Params& params, const Settings& settings, Index steps_per_epoch);

  /// Norms of a gradient: as it was, and with its elements clipped, before its norm is.
  struct Norms {
    double whole, limited;
  };
  /// Clips the elements of the gradients, then their norm, where there is a limit.
  Norms clip(Gradients& gradients) const;
  /// The update of a step, counted from 1.
  void step(const Gradients& gradients, Index step);
  /// Sets the learning rate of a step, as `step` does.
  void follow_schedule(Index step);
  /// Follows the validation loss, if the learning rate does.
  void end_epoch(std::optional<double> valid_loss);
  double learning_rate() const { return optimizer_->learning_rate(); }

  /// f() with the average in place of the weights, if there is one.
  template <class F>
  decltype(auto) with_average(F&& f) const {
    if (!ema_ || ema_->count() == 0) return std::forward<F>(f)();
    return nn::functional_call(params_, ema_->values(), std::forward<F>(f));
  }

  /// Puts the state into that of a run.
  void save(optim::RunState& state) const;
  /// Continues after that many steps, with a part of the learning rate. Throws ValueError if the
  /// state is not that of such a training.
  void restore(const optim::RunState& state, Index steps, double rate_factor);

 private:
  Params params_;
  double max_norm_, max_element_;  // 0: any
  std::unique_ptr<optim::Optimizer> optimizer_;
  optim::Schedule schedule_;
  double rate_factor_ = 1;
  std::optional<optim::ReduceOnPlateau> plateau_;
  std::optional<optim::Ema> ema_;
};

}  // namespace reel::char_lm
