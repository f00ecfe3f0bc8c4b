#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Sgd.
struct SgdOptions {
  double learning_rate = 1e-3;
  double momentum = 0;        ///< mu below, less than 1; 0 for none
  double dampening = 0;       ///< d below, at most 1
  bool nesterov = false;      ///< Nesterov momentum
  double weight_decay = 0;    ///< lambda below, an L2 penalty
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Stochastic gradient descent with momentum, as torch.optim.SGD computes it:
///
///     g <- g + lambda p
///     m <- mu m + (1 - d) g      (in the first step m <- g)
///     p <- p - lr m              (Nesterov: p - lr (g + mu m))
///
/// Without momentum only the number of steps is stored, and without weight decay either the rows of
/// an Embedding that were not read are not touched. Sutskever et al., "On the importance of
/// initialization and momentum in deep learning", 2013.
class Sgd final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, the momentum is 1 or more, the dampening more than
  /// 1, or Nesterov is set without momentum or with dampening.
  explicit Sgd(const nn::ModuleParams& params, const SgdOptions& options = {});

 private:
  static Common common(const SgdOptions& options);
  void update(const Piece& piece) const override;

  SgdOptions options_;
};

}  // namespace reel::optim
