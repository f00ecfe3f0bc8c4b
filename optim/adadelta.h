#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Adadelta.
struct AdadeltaOptions {
  double learning_rate = 1;
  double rho = 0.9;           ///< decay rate of both means
  double epsilon = 1e-6;      ///< at least the smallest normal number of the parameters' dtype
  double weight_decay = 0;    ///< lambda below, an L2 penalty
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Steps whose size follows from the mean square of earlier steps, as torch.optim.Adadelta computes
/// it:
///
///     g <- g + lambda p
///     v <- rho v + (1 - rho) g^2
///     d <- sqrt(u + epsilon) / sqrt(v + epsilon) g
///     u <- rho u + (1 - rho) d^2
///     p <- p - lr d
///
/// Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.
class Adadelta final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, rho is 1 or more, or epsilon is too small.
  explicit Adadelta(const nn::ModuleParams& params, const AdadeltaOptions& options = {});

 private:
  void update(const Piece& piece) const override;

  AdadeltaOptions options_;
};

}  // namespace reel::optim
