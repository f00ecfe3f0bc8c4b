#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Adamax.
struct AdamaxOptions {
  double learning_rate = 2e-3;
  double beta1 = 0.9;         ///< decay rate of the mean of the gradients
  double beta2 = 0.999;       ///< decay rate of the largest magnitude
  double epsilon = 1e-8;      ///< at least the smallest normal number of the parameters' dtype
  double weight_decay = 0;    ///< lambda below, an L2 penalty
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Adam by the largest gradient instead of their mean square, as torch.optim.Adamax computes it. In
/// the t-th step of a parameter,
///
///     g <- g + lambda p
///     m <- beta1 m + (1 - beta1) g
///     u <- max(beta2 u, |g| + epsilon)
///     p <- p - lr / (1 - beta1^t) m / u
///
/// Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.
class Adamax final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, a beta is 1 or more, or epsilon is too small.
  explicit Adamax(const nn::ModuleParams& params, const AdamaxOptions& options = {});

 private:
  void update(const Piece& piece) const override;

  AdamaxOptions options_;
};

}  // namespace reel::optim
