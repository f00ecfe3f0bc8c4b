#pragma once

#include <vector>

#include <reel/autograd/tensor.h>

namespace reel::datasets {

/// Brings each feature to mean 0 and standard deviation 1, as it is in the training part:
///
///     apply(x) = (x - mean) / deviation,   invert(y) = y · deviation + mean
///
/// A feature that is constant there is only shifted: its deviation is 1. The numbers are data: the
/// results are on no tape.
class Normalization {
 public:
  /// Of a training part [..., D]: mean and standard deviation over all but the last axis, in double
  /// (the sum of squares divided by the number of vectors). Throws DTypeError for i32, ShapeError
  /// for a scalar, ValueError without vectors or for numbers that are not finite.
  explicit Normalization(const Tensor& train, Site site = {});
  /// Of the numbers that `mean` and `deviation` returned. Throws ValueError unless they are equally
  /// many, finite, and the deviations positive.
  Normalization(std::vector<double> mean, std::vector<double> deviation, Site site = {});

  const std::vector<double>& mean() const { return mean_; }
  const std::vector<double>& deviation() const { return deviation_; }

  /// Of a tensor [..., D] of f32 or f64, in its dtype. Throws DTypeError or ShapeError.
  Tensor apply(const Tensor& x, Site site = {}) const;
  /// The inverse of apply(). Throws DTypeError or ShapeError.
  Tensor invert(const Tensor& y, Site site = {}) const;

 private:
  std::vector<double> mean_, deviation_;
};

}  // namespace reel::datasets
