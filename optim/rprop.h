#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Rprop.
struct RpropOptions {
  double learning_rate = 1e-2;  ///< the first step size; schedules do not change later ones
  double shrink = 0.5;          ///< eta- below, between 0 and 1
  double grow = 1.2;            ///< eta+ below, more than 1
  double least_step = 1e-6;     ///< of the sizes, at least 1.2e-38
  double greatest_step = 50;
  double weight_decay = 0;    ///< lambda below, an L2 penalty; PyTorch has none
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Resilient backpropagation, for gradients of all data, as torch.optim.Rprop computes it. Only the
/// sign of a gradient counts: each element has a step size s, which grows while the sign stays and
/// shrinks when it changes, and is left alone in the step in which it changes. With h the gradient
/// before, 0 at first:
///
///     g <- g + lambda p
///     s <- s eta+  if g h > 0,  s eta-  if g h < 0,  within [least_step, greatest_step]
///     g <- 0       if g h < 0
///     p <- p - s sign(g)
///     h <- g
///
/// A product g h that underflows has a sign here, and none in PyTorch. The learning rate is the
/// size in the first step of an element alone. Riedmiller and Braun, "A direct adaptive method for
/// faster backpropagation learning: the RPROP algorithm", 1993.
class Rprop final : public Optimizer {
 public:
  /// Throws ValueError if an option is out of range.
  explicit Rprop(const nn::ModuleParams& params, const RpropOptions& options = {});

 private:
  void update(const Piece& piece) const override;

  RpropOptions options_;
};

}  // namespace reel::optim
