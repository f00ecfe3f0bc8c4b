#pragma once

#include <reel/nn/sizes.h>

namespace reel::nn {

/// Normalises the last axis to mean 0 and variance 1, then scales and shifts: x [..., size] ->
/// [..., size]. Parameters `gain` (ones) and `bias` (zeros) [size] (Ba et al., 2016).
struct LayerNorm {
  /// Throws ValueError unless `size` and `epsilon` are positive and finite.
  LayerNorm(const ModuleParams& p, Arg<Index> size, Arg<double> epsilon = 1e-5);

  /// Throws ShapeError unless the last axis of x has `size` elements.
  Tensor operator()(const Tensor& x, Site site = {}) const;

  Param gain, bias;
  double epsilon;
};

}  // namespace reel::nn
