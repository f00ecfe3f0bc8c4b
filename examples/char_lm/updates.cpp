#include "updates.h"

#include <fmt/format.h>

#include <reel/optim/clip.h>
#include <reel/optim/optimizers.h>
#include <reel/optim/rmsprop.h>

namespace reel::char_lm {
namespace {

optim::Schedule after_warmup(const Settings& s, Index steps_per_epoch) {
  if (s.schedule == "cosine")
    return optim::CosineDecay{.learning_rate = s.lr,
                              .length = s.epochs * steps_per_epoch - s.warmup};
  if (s.schedule == "exponential")
    return optim::ByEpoch{
        .steps = steps_per_epoch,
        .epochs = optim::ExponentialDecay{
            .learning_rate = s.lr, .factor = s.lr_decay, .after = s.lr_decay_after}};
  return s.lr;
}

std::unique_ptr<optim::Optimizer> optimizer_of(const Settings& s, const Params& params) {
  if (s.optimizer == "rmsprop")
    return std::make_unique<optim::RmsProp>(
        params, optim::RmsPropOptions{.learning_rate = s.lr, .alpha = s.decay_rate});
  return optim::make_optimizer(s.optimizer, params, s.lr);
}

}  // namespace

optim::Schedule schedule_of(const Settings& s, Index steps_per_epoch) {
  if (const Index steps = s.epochs * steps_per_epoch; s.warmup >= steps)
    throw ValueError(
        fmt::format("--warmup {} is not less than the {} steps of the training; give "
                    "a smaller one, or more --epochs",
                    s.warmup, steps));
  const optim::Schedule schedule = after_warmup(s, steps_per_epoch);
  return s.warmup == 0 ? schedule : optim::Warmup{.steps = s.warmup, .then = schedule};
}

nn::NamedTensors weights_of(const optim::RunState& checkpoint, const Params& params) {
  if (!checkpoint.more.tensors.contains("ema.count")) return checkpoint.params;
  optim::Ema ema(params);
  ema.restore(checkpoint.more);
  return ema.count() == 0 ? checkpoint.params : ema.values();
}

Updates::Updates(const Params& params, const Settings& settings, Index steps_per_epoch)
    : params_(params),
      max_norm_(settings.clip),
      max_element_(settings.clip_value),
      optimizer_(optimizer_of(settings, params)),
      schedule_(schedule_of(settings, steps_per_epoch)) {
  if (settings.schedule == "plateau")
    plateau_.emplace(optim::ReduceOnPlateauOptions{.factor = 0.5, .patience = 0});
  if (settings.ema > 0) ema_.emplace(params, settings.ema);
}

Updates::Norms Updates::clip(Gradients& gradients) const {
  const auto clip_norm = [&] {
    return max_norm_ > 0 ? optim::clip_by_norm(gradients, max_norm_) : gradients.norm();
  };
  if (max_element_ == 0) {
    const double norm = clip_norm();
    return {norm, norm};
  }
  const double whole = gradients.norm();
  optim::clip_by_value(gradients, max_element_);
  return {whole, clip_norm()};
}

void Updates::step(const Gradients& gradients, Index step) {
  follow_schedule(step);
  optimizer_->step(gradients);
  if (ema_) ema_->update();
}

void Updates::follow_schedule(Index step) {
  const double of_plateau = plateau_ ? plateau_->factor() : 1;
  optimizer_->set_learning_rate(schedule_.at(step) * of_plateau * rate_factor_);
}

void Updates::end_epoch(std::optional<double> valid_loss) {
  if (plateau_ && valid_loss) plateau_->update(*valid_loss);
}

void Updates::save(optim::RunState& state) const {
  state.optimizer = optimizer_->state();
  if (plateau_) state.more.insert("", plateau_->state());
  if (ema_) state.more.insert("", ema_->state());
}

void Updates::restore(const optim::RunState& state, Index steps, double rate_factor) {
  rate_factor_ = rate_factor;
  if (plateau_) plateau_->restore(state.more);
  if (ema_) ema_->restore(state.more);
  optimizer_->restore(state.optimizer);
  if (steps > 0) follow_schedule(steps);
}

}  // namespace reel::char_lm
