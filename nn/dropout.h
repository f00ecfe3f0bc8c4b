#pragma once

#include <reel/nn/mode.h>

namespace reel::nn {

/// While training zeroes each element with probability `rate` and divides the others by 1 - rate;
/// otherwise the identity (Srivastava et al., 2014).
struct Dropout {
  /// Throws ValueError unless 0 <= rate < 1.
  explicit Dropout(Arg<double> rate, Site site = {});

  /// The mode has no default here. In Eval with a rate above 0 on a tensor that a tape is recording
  /// gradients for, which may be a model in training whose call leaves out its mode, a note on
  /// standard error says so, once in the life of the program.
  Tensor operator()(const Tensor& x, const Mode& mode, Site site = {}) const;

  double rate;
};

}  // namespace reel::nn
