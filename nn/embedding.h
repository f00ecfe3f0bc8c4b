#pragma once

#include <reel/nn/mode.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// A table of vectors, one for each of `count` symbols: i32 [...] -> [..., size]. Parameter `w`
/// [count, size], by default standard normal.
struct Embedding {
  /// `rate` is the probability that training drops a symbol, at all its places in a call, and
  /// divides the others by 1 - rate (Gal and Ghahramani, 2016; Merity et al., 2018). Throws
  /// ValueError for sizes that are not positive, or a rate outside [0, 1).
  Embedding(const ModuleParams& p, Arg<Index> count, Arg<Index> size, const Initializer& init = {},
            Arg<double> rate = 0);

  /// Without dropout. Throws ValueError for a symbol outside 0 .. count-1.
  Tensor operator()(const Tensor& symbols, Site site = {}) const;
  /// With dropout in training.
  Tensor operator()(const Tensor& symbols, const Mode& mode, Site site = {}) const;

  Param w;
  double dropout;
};

}  // namespace reel::nn
