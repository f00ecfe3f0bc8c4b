#include <reel/optim/non_monotonic_trigger.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace reel::optim {

NonMonotonicTrigger::NonMonotonicTrigger(Arg<Index> patience, Site site)
    : patience_(static_cast<std::size_t>(std::max<Index>(patience, 0))) {
  if (patience < 1)
    throw ValueError(fmt::format("NonMonotonicTrigger: patience is {}, but has to be 1 or more",
                                 Index{patience}),
                     site);
}

bool NonMonotonicTrigger::update(Arg<double> loss) {
  if (losses_.size() > patience_) {
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i + patience_ < losses_.size(); ++i)
      if (losses_[i] < best) best = losses_[i];  // NaN is none
    is_triggered_ |= !(loss <= best);
  }
  losses_.push_back(loss);
  return is_triggered_;
}

nn::NamedTensors NonMonotonicTrigger::state() const {
  nn::NamedTensors state;
  state.tensors["trigger.losses"] =
      tensor({static_cast<Index>(losses_.size())}, std::span<const double>(losses_), f64);
  state.tensors["trigger.is_triggered"] = scalar(is_triggered_ ? 1.0 : 0.0, f64);
  return state;
}

void NonMonotonicTrigger::restore(const nn::NamedTensors& state, Site site) {
  const Tensor& losses = state[{"trigger.losses", site}];
  if (losses.dtype() != f64 || losses.rank() != 1)
    throw ValueError("NonMonotonicTrigger: trigger.losses is not a list of f64", site);
  is_triggered_ = nn::number_in(state, "trigger.is_triggered", 0, 1, site) != 0;
  losses_ = losses.to_vector();
}

}  // namespace reel::optim
