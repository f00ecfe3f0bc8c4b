#pragma once

#include <reel/nn/sizes.h>

namespace reel::nn {

/// A table of vectors, one for each of `count` symbols: i32 [...] -> [..., size]. Parameter `w`
/// [count, size], by default standard normal.
struct Embedding {
  /// Throws ValueError for sizes that are not positive.
  Embedding(const ModuleParams& p, Arg<Index> count, Arg<Index> size, const Initializer& init = {});

  /// Throws ValueError for a symbol outside 0 .. count-1.
  Tensor operator()(const Tensor& symbols, Site site = {}) const;

  Param w;
};

}  // namespace reel::nn
