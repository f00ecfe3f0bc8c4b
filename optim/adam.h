#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Adam.
struct AdamOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;    ///< decay rate of the first moment, the mean of the gradients
  double beta2 = 0.999;  ///< decay rate of the second moment, the mean of their squares
  /// Added to the square root of the second moment. At least √(s / (1 - beta2)), where s is the
  /// smallest normal number of the parameters' dtype: 3.4e-18 in f32 with the default beta2,
  /// 4.7e-153 in f64. Squares of smaller gradients underflow, and only epsilon bounds their steps.
  double epsilon = 1e-8;
  double weight_decay = 0;    ///< lambda below, an L2 penalty; decoupled in AdamW
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  bool amsgrad = false;       ///< divide by the largest v so far
  std::vector<Group> groups = {};
};

/// Adam, as torch.optim.Adam computes it. In the t-th step of a parameter,
///
///     g <- g + lambda p
///     m <- beta1 m + (1 - beta1) g
///     v <- beta2 v + (1 - beta2) g^2
///     p <- p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
///
/// AMSGrad has v_max <- max(v_max, v) in place of v in the last line. Kingma and Ba, "Adam: A
/// Method for Stochastic Optimization", 2015; Reddi, Kale and Kumar, "On the Convergence of Adam
/// and Beyond", 2018.
class Adam : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, a beta is 1 or more, or epsilon is too small.
  explicit Adam(const nn::ModuleParams& params, const AdamOptions& options = {});

 protected:
  Adam(std::string name, const nn::ModuleParams& params, const AdamOptions& options, Decay decay);

 private:
  void update(const Piece& piece) const override;

  AdamOptions options_;
};

}  // namespace reel::optim
