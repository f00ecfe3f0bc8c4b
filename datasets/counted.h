#pragma once

#include <vector>

#include <reel/datasets/metrics.h>

namespace reel::datasets {

/// A position that a metric counts.
struct Counted {
  std::int32_t target, prediction;
};

/// The positions that are not ignored, in row-major order, for `call`, which an error names. Throws
/// DTypeError or ShapeError.
std::vector<Counted> counted(const char* call, const Tensor& targets, const Tensor& predictions,
                             const Ignored& ignored, Site site);

}  // namespace reel::datasets
