#pragma once

#include <optional>
#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// The options of Adafactor.
struct AdafactorOptions {
  double learning_rate = 1e-2;  ///< at most, relative to the size of a parameter
  double beta2_decay = -0.8;    ///< kappa below, 0 or less
  /// The least root of a mean of squares, PyTorch's first eps; if it is not given, the precision of
  /// the parameters' dtype: 1.2e-7 in f32, 2.2e-16 in f64.
  std::optional<double> epsilon = {};
  double least_size = 1e-3;   ///< of a parameter, epsilon2 below; PyTorch's second eps
  double threshold = 1;       ///< d below, from 1 on: the largest root mean square of a step
  double weight_decay = 0;    ///< lambda below
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Adafactor, which stores of a matrix with R rows and C columns not the mean of its squared
/// gradients but R + C numbers that approximate it, as torch.optim.Adafactor computes it. With t
/// the steps of the parameter, rms(x) the root of the mean of the squares of x, and means of each
/// row and each column of a matrix; parameters of more axes are matrices in their last two:
///
///     w <- t^kappa
///     r <- (1 - w) r + w mean over a row of g^2
///     c <- (1 - w) c + w mean over a column of g^2
///     v <- r c / max(mean(r), epsilon)              (vectors: v <- (1 - w) v + w g^2)
///     u <- g / max(sqrt(v), epsilon)
///     a <- max(epsilon2, rms(p)) min(lr, 1 / sqrt(t))
///     p <- p - lr lambda p
///     p <- p - a u / max(1, rms(u) / d)
///
/// without momentum, as there. Shazeer and Stern, "Adafactor: Adaptive Learning Rates with
/// Sublinear Memory Cost", 2018.
class Adafactor final : public Optimizer {
 public:
  /// Throws ValueError if an option is out of range, epsilon is too small, or a group has
  /// lazy_rows.
  explicit Adafactor(const nn::ModuleParams& params, const AdafactorOptions& options = {});

 private:
  void begin(Slot& slot, const Tensor& gradient, double clip) const override;
  void update(const Piece& piece) const override;
  /// The root of the mean of squares after this step, for a matrix as its factors give it.
  Tensor root_mean_square(Slot& slot, const Tensor& gradient, double epsilon) const;

  AdafactorOptions options_;
};

}  // namespace reel::optim
