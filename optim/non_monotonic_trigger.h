#pragma once

#include <vector>

#include <reel/autograd/argument.h>
#include <reel/nn/named_tensors.h>

namespace reel::optim {

/// When to begin averaging the weights: at the first validation loss that is above the best of
/// those before the last `patience`. With Sgd and Swa this is NT-ASGD:
///
///     if (trigger.update(validation_loss)) ...   // from then on swa.update() after each step
///
/// Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", 2018, where the
/// patience, n, is 5.
class NonMonotonicTrigger {
 public:
  /// Throws ValueError if patience < 1.
  explicit NonMonotonicTrigger(Arg<Index> patience = 5, Site site = {});

  /// Takes the next loss; returns whether it has been triggered, by this one or before.
  bool update(Arg<double> loss);
  bool is_triggered() const { return is_triggered_; }

  /// "trigger.losses", f64 [n], and "trigger.is_triggered".
  nn::NamedTensors state() const;
  /// Throws ValueError, having changed nothing, if an entry is missing or impossible.
  void restore(const nn::NamedTensors& state, Site site = {});

 private:
  std::size_t patience_;
  std::vector<double> losses_;
  bool is_triggered_ = false;
};

}  // namespace reel::optim
