#pragma once

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>

namespace reel::datasets {

/// The mean loss over parts, such as the windows of a text, from their means in nats and weights
/// (their numbers of positions): Σ w · loss / Σ w, in double. Its two sums are its whole state.
class LossMean {
 public:
  LossMean() = default;
  /// Continues with the sums of another. Throws ValueError unless they are finite, the weight is
  /// not negative, and the sum is 0 if the weight is.
  LossMean(Arg<double> sum, Arg<double> weight, Site site = {});

  /// Adds the mean loss of a part. Throws ValueError unless the weight is finite and not negative;
  /// a loss that is not finite makes the mean so. With weight 0 nothing is added.
  void add(Arg<double> loss, Arg<double> weight, Site site = {});

  double sum() const { return sum_; }
  double weight() const { return weight_; }

  /// In nats. Like those below it throws ValueError if the weights add up to 0.
  double mean(Site site = {}) const;
  /// Of the mean; see metrics.h.
  double perplexity(Site site = {}) const;
  /// The mean in bits; see metrics.h.
  double bits(Site site = {}) const;

 private:
  double sum_ = 0, weight_ = 0;
};

}  // namespace reel::datasets
