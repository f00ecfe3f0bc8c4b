#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of RAdam.
struct RAdamOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;         ///< decay rate of the first moment, the mean of the gradients
  double beta2 = 0.999;       ///< decay rate of the second moment, the mean of their squares
  double epsilon = 1e-8;      ///< with a least value, see AdamOptions
  bool decoupled = false;     ///< weight decay as in AdamW
  double weight_decay = 0;    ///< lambda below, an L2 penalty
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Adam whose first steps, of which the second moment knows too little, are those of SGD with
/// momentum, as torch.optim.RAdam computes it. In the t-th step of a parameter, with
/// r = 2 / (1 - beta2) - 1 and r_t = r - 2 t beta2^t / (1 - beta2^t),
///
///     g <- g + lambda p                            (decoupled: p <- p - lr lambda p)
///     m <- beta1 m + (1 - beta1) g
///     v <- beta2 v + (1 - beta2) g^2
///     d <- m / (1 - beta1^t)
///     if r_t > 5: d <- d sqrt((r_t - 4) (r_t - 2) r / ((r - 4) (r - 2) r_t))
///                      sqrt(1 - beta2^t) / (sqrt(v) + epsilon)
///     p <- p - lr d
///
/// Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020.
class RAdam final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, a beta is 1 or more, or epsilon is too small.
  explicit RAdam(const nn::ModuleParams& params, const RAdamOptions& options = {});

 private:
  void update(const Piece& piece) const override;

  RAdamOptions options_;
};

}  // namespace reel::optim
