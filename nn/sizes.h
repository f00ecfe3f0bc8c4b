#pragma once

#include <initializer_list>
#include <utility>

#include <reel/autograd/shape.h>

namespace reel::nn {

/// Throws ValueError, naming the module and the size, unless every size is positive.
void require_positive(const char* module,
                      std::initializer_list<std::pair<const char*, Index>> sizes);

/// Throws ValueError unless 0 <= rate < 1.
void require_rate(const char* module, double rate);

}  // namespace reel::nn
