#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of RmsProp.
struct RmsPropOptions {
  double learning_rate = 1e-2;
  double alpha = 0.99;  ///< decay rate of the mean of the squared gradients
  /// Added to the square root of that mean. At least √(s / (1 - alpha)), where s is the smallest
  /// normal number of the parameters' dtype: 1.1e-18 in f32 with the default alpha, 1.5e-153 in
  /// f64. Squares of smaller gradients underflow, and only epsilon bounds their steps.
  double epsilon = 1e-8;
  double momentum = 0;        ///< mu below, less than 1; 0 for none
  bool centered = false;      ///< divide by the standard deviation of the gradients
  double weight_decay = 0;    ///< lambda below, an L2 penalty
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// RMSprop, as torch.optim.RMSprop computes it:
///
///     g <- g + lambda p
///     v <- alpha v + (1 - alpha) g^2
///     a <- alpha a + (1 - alpha) g                  (centered)
///     s <- sqrt(v) + epsilon                        (centered: sqrt(max(0, v - a^2)) + epsilon)
///     m <- mu m + g / s
///     p <- p - lr m
///
/// Without momentum m is not stored, nor a unless it is centered. The maximum with 0 is ours: v -
/// a^2 can be negative by rounding, and PyTorch's parameters become NaN. Tieleman and Hinton,
/// Lecture 6.5 of "Neural Networks for Machine Learning", 2012; Graves, "Generating Sequences With
/// Recurrent Neural Networks", 2013 (centered).
class RmsProp final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, alpha or the momentum is 1 or more, or epsilon is
  /// too small.
  explicit RmsProp(const nn::ModuleParams& params, const RmsPropOptions& options = {});

 private:
  void update(const Piece& piece) const override;

  RmsPropOptions options_;
};

}  // namespace reel::optim
