#pragma once

#include <limits>

#include <reel/autograd/argument.h>
#include <reel/nn/named_tensors.h>

namespace reel::optim {

/// The options of ReduceOnPlateau.
struct ReduceOnPlateauOptions {
  double factor = 0.1;
  Index patience = 10;      ///< updates without improvement that are tolerated; 0 reduces at once
  double threshold = 1e-4;  ///< the least improvement, relative to the best loss
  Index cooldown = 0;       ///< updates after a reduction that are not counted
  double least_factor = 0;  ///< of the product of all reductions
};

/// A factor for the learning rate that falls whenever a loss has stopped falling:
///
///     sgd.set_learning_rate(schedule.at(epoch) * plateau.factor());  // before an epoch
///     plateau.update(validation_loss);                               // after it
///
/// With a factor of 0.5 and no patience the rate is halved after each epoch without an improvement
/// in validation. As torch.optim.lr_scheduler.ReduceLROnPlateau computes it, for a loss; give it
/// the negative of something that should grow, as the improvement is relative to the magnitude.
class ReduceOnPlateau {
 public:
  /// Throws ValueError unless 0 <= factor < 1 and the others are finite and not negative.
  explicit ReduceOnPlateau(const ReduceOnPlateauOptions& options = {}, Site site = {});

  /// Takes the next loss, which is no improvement if it is NaN. Returns whether it was reduced.
  bool update(Arg<double> loss);
  /// The product of the reductions, 1 at first.
  double factor() const { return factor_; }
  double best() const { return best_; }

  /// "plateau.factor" and what else is needed to continue, f64 scalars.
  nn::NamedTensors state() const;
  /// Throws ValueError, having changed nothing, if an entry is missing or impossible.
  void restore(const nn::NamedTensors& state, Site site = {});

 private:
  ReduceOnPlateauOptions options_;
  double factor_ = 1, best_ = std::numeric_limits<double>::infinity();
  Index bad_ = 0, cooling_ = 0;
};

}  // namespace reel::optim
