#pragma once

#include <algorithm>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>

// What the losses of sequences share.
namespace reel::detail {

/// Which steps of a batch [T, B] are no padding, for specifications.
struct RealSteps {
  Index steps, rows;
  const std::int32_t* lengths;  // null: all rows have all steps

  RealSteps(Index steps, Index rows, const Tensor& lengths)
      : steps(steps),
        rows(rows),
        lengths(lengths.defined() ? lengths.values<std::int32_t>().data() : nullptr) {}

  Index length(Index row) const { return lengths ? lengths[row] : steps; }
  Index count() const {
    Index sum = 0;
    for (Index b = 0; b < rows; ++b) sum += length(b);
    return sum;
  }
  /// i32 [T - first, B]: whether each step from the first one on is.
  Tensor mask(Index first) const {
    Tensor real({steps - first, rows}, i32);
    std::int32_t* to = real.begin_update<std::int32_t>().data();
    for (Index t = first; t < steps; ++t)
      for (Index b = 0; b < rows; ++b) *to++ = t < length(b);
    return real;
  }
  /// i32 [B]: whether step t is.
  Tensor at(Index t) const {
    Tensor real({rows}, i32);
    std::int32_t* to = real.begin_update<std::int32_t>().data();
    for (Index b = 0; b < rows; ++b) to[b] = t < length(b);
    return real;
  }
};

/// For a loss whose forward kernel made its gradient: the gradient of an input, if it is needed, is
/// g times a hidden output.
template <class T>
void scale_gradient(op::BackwardCtx<T> c, int input, int output) {
  T* to = c.grad(input);
  if (!to) return;
  const T g = *c.g();
  const T* from = c.out(output);
  std::transform(from, from + c.shape(input).size(), to, [=](T x) { return g * x; });
}

}  // namespace reel::detail
