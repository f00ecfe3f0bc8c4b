#pragma once

#include <reel/autograd/ops/axis.h>

// Shared by the kernels that iterate along one axis.
namespace reel::detail {

/// Calls f(first, line) for each line along the axis: the offset of its first element, and its
/// index in row-major order of the other axes. Its elements are shape.stride(axis) apart.
template <class F>
void each_line(const Shape& shape, int axis, F f) {
  const AxisView view(shape, axis);
  for (Index o = 0; o < view.outer; ++o)
    for (Index i = 0; i < view.inner; ++i) f(o * view.size * view.inner + i, o * view.inner + i);
}

}  // namespace reel::detail
