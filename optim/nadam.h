#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of NAdam.
struct NAdamOptions {
  double learning_rate = 2e-3;
  double beta1 = 0.9;            ///< decay rate of the first moment, the mean of the gradients
  double beta2 = 0.999;          ///< decay rate of the second moment, the mean of their squares
  double epsilon = 1e-8;         ///< with a least value, see AdamOptions
  double momentum_decay = 4e-3;  ///< psi below
  bool decoupled = false;        ///< weight decay as in AdamW
  double weight_decay = 0;       ///< lambda below, an L2 penalty
  nn::Selection decays = {};     ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Adam with Nesterov momentum, as torch.optim.NAdam computes it. In the t-th step of a parameter,
///
///     mu_t <- beta1 (1 - 0.96^(t psi) / 2)
///     P <- mu_1 ... mu_t
///     g <- g + lambda p                            (decoupled: p <- p - lr lambda p)
///     m <- beta1 m + (1 - beta1) g
///     v <- beta2 v + (1 - beta2) g^2
///     d <- (1 - mu_t) / (1 - P) g + mu_(t+1) / (1 - mu_(t+1) P) m
///     p <- p - lr d / (sqrt(v / (1 - beta2^t)) + epsilon)
///
/// Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
class NAdam final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, a beta is 1 or more, or epsilon is too small.
  explicit NAdam(const nn::ModuleParams& params, const NAdamOptions& options = {});

 private:
  void begin(Slot& slot, const Tensor& gradient, double clip) const override;
  void update(const Piece& piece) const override;
  double mu(double step) const;

  NAdamOptions options_;
};

}  // namespace reel::optim
