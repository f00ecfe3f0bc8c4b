#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Adagrad.
struct AdagradOptions {
  double learning_rate = 1e-2;
  double learning_rate_decay = 0;  ///< d below
  double initial_sum = 0;          ///< of the squares; PyTorch's initial_accumulator_value
  double epsilon = 1e-10;          ///< at least √s for s the smallest normal number of the dtype
  double weight_decay = 0;         ///< lambda below, an L2 penalty
  nn::Selection decays = {};       ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// A learning rate for each element that falls with the sum of its squared gradients, as
/// torch.optim.Adagrad computes it. In the t-th step of a parameter,
///
///     g <- g + lambda p
///     v <- v + g^2
///     p <- p - lr / (1 + (t - 1) d) g / (sqrt(v) + epsilon)
///
/// Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011.
class Adagrad final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative or epsilon is too small.
  explicit Adagrad(const nn::ModuleParams& params, const AdagradOptions& options = {});

 private:
  void update(const Piece& piece) const override;

  AdagradOptions options_;
};

}  // namespace reel::optim
