#pragma once

#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Asgd.
struct AsgdOptions {
  double learning_rate = 1e-2;
  double decay = 1e-4;        ///< delta below, of the rate and the parameters; PyTorch's lambd
  double power = 0.75;        ///< kappa below, of the decay of the rate; PyTorch's alpha
  double start = 1e6;         ///< s below, the step after which averaging starts; PyTorch's t0
  double weight_decay = 0;    ///< lambda below, an L2 penalty
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Averaged stochastic gradient descent, as torch.optim.ASGD computes it. With t the steps of the
/// parameter, and a its average, which is p until averaging starts:
///
///     g <- g + lambda p
///     r <- lr / (1 + delta lr (t - 1))^kappa
///     p <- (1 - delta r) p - r g
///     a <- a + (p - a) / max(1, t - 1 - s)
///
/// where PyTorch takes r from the learning rate of the step before, if that was another one. The
/// average is part of the state. Evaluate with it in place of the parameters, or load it at the
/// end; it is 0 before the first step of a parameter, and with lazy_rows that of a row is one of
/// the steps in which it has a gradient.
///
///     const nn::NamedTensors average = asgd.state().part("asgd.average.");
///     const double loss = nn::functional_call(params, average, validate);
///     nn::load_params(average, params);
///
/// Averages of the steps of any optimizer: Swa. Polyak and Juditsky, "Acceleration of stochastic
/// approximation by averaging", 1992; Bottou, "Stochastic Gradient Descent Tricks", 2012.
class Asgd final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative or infinite.
  explicit Asgd(const nn::ModuleParams& params, const AsgdOptions& options = {});

 private:
  void begin(Slot& slot, const Tensor& gradient, double clip) const override;
  void update(const Piece& piece) const override;

  AsgdOptions options_;
};

}  // namespace reel::optim
