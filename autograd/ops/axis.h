#pragma once

#include <reel/autograd/shape.h>

// Shared by the ops along one axis.
namespace reel {

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
