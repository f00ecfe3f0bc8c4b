#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include <reel/autograd/params.h>

namespace reel::nn {

/// Throws ValueError, naming the module, its place in the store and the size, unless every size is
/// positive; returns the store, so that a constructor can check before it constructs its members.
const Params& require_positive(const Params& p, const char* module,
                               std::initializer_list<std::pair<const char*, Index>> sizes);

/// "Lstm encoder.0", for messages.
std::string module_name(const Params& p, const char* module);

/// Throws ShapeError, naming the module of parameter `w`, unless the last axis of x has `size`
/// elements. An undefined tensor is left for the op to refuse.
void require_features(const char* module, const Param& w, const Tensor& x, Index size, Site site);

/// Throws ValueError unless 0 <= rate < 1.
void require_rate(const char* module, double rate);

}  // namespace reel::nn
