#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Lion.
struct LionOptions {
  double learning_rate = 1e-4;
  double beta1 = 0.9;         ///< weight of m in the step
  double beta2 = 0.99;        ///< decay rate of m
  double weight_decay = 0;    ///< lambda below
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Steps of equal size in the direction of the signs (evolved sign momentum):
///
///     p <- p - lr lambda p
///     p <- p - lr sign(beta1 m + (1 - beta1) g)
///     m <- beta2 m + (1 - beta2) g
///
/// where sign(0) = 0. Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023.
class Lion final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative or a beta is 1 or more.
  explicit Lion(const nn::ModuleParams& params, const LionOptions& options = {});

 private:
  void update(const Piece& piece) const override;

  LionOptions options_;
};

}  // namespace reel::optim
