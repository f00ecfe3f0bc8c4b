#pragma once

#include <reel/optim/optimizer.h>

namespace reel::optim {

struct RmsPropOptions {
  double learning_rate = 1e-2;
  double alpha = 0.99;  ///< decay rate of the mean of the squared gradients
  /// Added to the square root of that mean. At least √(s / (1 - alpha)), where s is the smallest
  /// normal number of the parameters' dtype: 1.1e-18 in f32 with the default alpha, 1.5e-153 in
  /// f64. Squares of smaller gradients underflow, and only epsilon bounds their steps.
  double epsilon = 1e-8;
  double momentum = 0;  ///< mu below, less than 1; 0 for none
};

/// RMSprop, as torch.optim.RMSprop computes it:
///
///     v <- alpha v + (1 - alpha) g^2
///     m <- mu m + g / (sqrt(v) + epsilon)
///     p <- p - lr m
///
/// Without momentum m is not stored. Tieleman and Hinton, Lecture 6.5 of "Neural Networks for
/// Machine Learning", 2012.
class RmsProp final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, alpha or the momentum is 1 or more, or epsilon is
  /// too small.
  explicit RmsProp(const nn::ModuleParams& params, const RmsPropOptions& options = {});

 private:
  void update(const Slot& slot, const Tensor& gradient, const Range& piece) const override;

  RmsPropOptions options_;
};

}  // namespace reel::optim
