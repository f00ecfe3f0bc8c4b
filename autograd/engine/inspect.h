#pragma once

#include <optional>
#include <string>

#include <reel/autograd/tensor.h>

namespace reel {

/// Describes the first NaN or infinity of x: "NaN at [3, 0, 17] of [64, 8, 32] (time step 3)".
/// `step` is the time step that x belongs to, or -1; for a tensor [T, B, F] it is found from the
/// index.
std::optional<std::string> first_not_finite(const Tensor& x, std::int32_t step);

}  // namespace reel
