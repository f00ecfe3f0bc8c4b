#pragma once

#include <vector>

#include <reel/optim/adam.h>

namespace reel::optim {

/// The options of AdamW.
struct AdamWOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;       ///< with a least value, see AdamOptions
  double weight_decay = 0.01;  ///< lambda below
  nn::Selection decays = {};   ///< the parameters with weight decay; see matrices_only
  bool amsgrad = false;        ///< divide by the largest v so far
  std::vector<Group> groups = {};
};

/// Adam with decoupled weight decay, as torch.optim.AdamW computes it: each step begins with
///
///     p <- p - lr lambda p
///
/// and continues as Adam's. Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
class AdamW final : public Adam {
 public:
  /// Throws ValueError if an option is negative, a beta is 1 or more, or epsilon is too small.
  explicit AdamW(const nn::ModuleParams& params, const AdamWOptions& options = {});
};

}  // namespace reel::optim
