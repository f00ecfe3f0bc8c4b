#pragma once

#include <initializer_list>
#include <utility>

#include <reel/autograd/params.h>

namespace reel::nn {

/// Throws ValueError, naming the module and the size, unless every size is positive.
void require_positive(const char* module,
                      std::initializer_list<std::pair<const char*, Index>> sizes);

/// Throws ShapeError, naming the module of parameter `w`, unless the last axis of x has `size`
/// elements. A tensor that was never given a value is the op's to refuse.
void require_features(const char* module, const Param& w, const Tensor& x, Index size, Site site);

/// Throws ValueError unless 0 <= rate < 1.
void require_rate(const char* module, double rate);

}  // namespace reel::nn
