#pragma once

#include <reel/optim/optimizer.h>

namespace reel::optim {

struct RmsPropOptions {
  double learning_rate = 1e-2;
  double alpha = 0.99;    ///< decay rate of the mean of the squared gradients
  double epsilon = 1e-8;  ///< added to the square root of that mean
  double momentum = 0;    ///< mu below; 0 for none
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
  /// Throws ValueError if an option is negative or alpha is 1 or more.
  explicit RmsProp(const Params& params, const RmsPropOptions& options = {});

 private:
  void update(const Slot& slot, const Tensor& gradient, const Range& piece) const override;

  RmsPropOptions options_;
};

}  // namespace reel::optim
