#pragma once

#include <fmt/format.h>

#include <reel/autograd/tensor.h>

// Shared by the ops along one axis.
namespace reel {

/// The axis of x, with `extra` new axes, that a call names. Throws ValueError if x is undefined,
/// and ShapeError if there is no such axis.
inline int axis_of(const Tensor& x, int axis, const char* op, Site site, int extra = 0) {
  if (!x.defined())
    throw ValueError(fmt::format("{}: the tensor is undefined: it was never given a value", op),
                     site);
  return normalized_axis(axis, x.rank() + extra, op, site);
}

struct Along {
  int axis;
};

/// An axis of a row-major array splits it into `outer` blocks of `size` runs of `inner` elements.
struct AxisView {
  Index outer, size, inner;
  AxisView(const Shape& shape, int axis) : outer(1), size(shape[axis]), inner(shape.stride(axis)) {
    for (int a = 0; a < axis; ++a) outer *= shape[a];
  }
};

}  // namespace reel
