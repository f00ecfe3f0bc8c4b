#pragma once

#include <reel/nn/mode.h>

namespace reel::nn {

/// While training zeroes each element with probability `rate` and divides the others by 1 - rate;
/// otherwise the identity (Srivastava et al., 2014).
struct Dropout {
  /// Throws ValueError unless 0 <= rate < 1.
  explicit Dropout(double rate);

  Tensor operator()(const Tensor& x, const Mode& mode, Site site = {}) const;

  double rate;
};

}  // namespace reel::nn
