#pragma once

#include <array>
#include <type_traits>
#include <utility>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>

// Shared by the reductions.
namespace reel::detail {
using namespace op;

struct Reduction {
  std::uint32_t axes;  ///< a bit mask
  bool keepdims;
};

/// The shape with every reduced axis of size 1.
inline Shape reduced(const Shape& shape, const Reduction& r) {
  Shape result = shape;
  for (int axis = 0; axis < shape.rank(); ++axis)
    if (r.axes >> axis & 1) result = result.with(axis, 1);
  return result;
}

/// The number of elements that are reduced to one.
inline Index group_size(const Shape& shape, const Reduction& r) {
  Index product = 1;
  for (int axis = 0; axis < shape.rank(); ++axis)
    if (r.axes >> axis & 1) product *= shape[axis];
  return product;
}

/// Whether the elements that are reduced to one are contiguous: the reduced axes are the last ones.
inline bool contiguous(const Shape& shape, const Reduction& r) {
  const std::uint32_t kept = ~r.axes & ((std::uint32_t{1} << shape.rank()) - 1);
  return (kept & (kept + 1)) == 0;
}

/// The shape of the result.
inline Shape result_shape(const Shape& shape, const Reduction& r) {
  Shape result = reduced(shape, r);
  for (int axis = shape.rank() - 1; axis >= 0 && !r.keepdims; --axis)
    if (r.axes >> axis & 1) result = result.erase(axis);
  return result;
}

inline constexpr auto any_reduction = [](const Arguments& in, const Reduction& r) -> Shape {
  return result_shape(in[0], r);
};

inline constexpr auto nonempty_reduction = [](const Arguments& in, const Reduction& r) -> Shape {
  const Shape result = result_shape(in[0], r);
  if (group_size(in[0], r) == 0 && result.size() > 0)
    in.fail("there is nothing to reduce along an empty axis");
  return result;
};

/// Reshapes a reduction's result or gradient so that it broadcasts against the input.
inline Tensor restored(const Tensor& y, const Shape& input, const Reduction& r) {
  const bool leading = (r.axes & (r.axes + 1)) == 0;  // axes that broadcasting adds anyway
  return r.keepdims || leading ? y : reshape(y, reduced(input, r));
}

/// Calls f(i, j) for each element i and the element j of the result that it is reduced to.
template <class F>
void each_element(const Shape& shape, const Reduction& r, F f) {
  const Shape small = reduced(shape, r);
  const kernels::BroadcastPlan<1> plan(shape, {&small});
  Index x = 0;
  plan.each_row([&](const auto& offset, Index n, const auto& stride) {
    for (Index i = 0; i < n; ++i) f(x + i, offset[0] + i * stride[0]);
    x += n;
  });
}

/// y = f(y, x) for each x of a row, in chains that do not wait for each other; GCC makes scalar
/// code of fewer.
template <class T, class F>
T fold_row(const T* x, Index n, T y, T start, F f) {
  std::array<T, 32> chains;
  chains.fill(start);
  const Index whole = n / std::ssize(chains) * std::ssize(chains);
  for (Index i = 0; i < whole; i += std::ssize(chains))
    for (std::size_t l = 0; l < chains.size(); ++l)
      chains[l] = f(chains[l], x[i + static_cast<Index>(l)]);
  for (Index i = whole; i < n; ++i) y = f(y, x[i]);
  for (const T chain : chains) y = f(y, chain);
  return y;
}

/// y = start, then y = f(y, x) for each x, in an order that depends on the shapes alone, where f is
/// associative and f(start, x) = x.
template <class T, class Y, class F>
void fold(Ctx<T> c, const Reduction& r, std::span<Y> out, Y start, F f) {
  std::ranges::fill(out, start);
  const Shape small = reduced(c.shape(0), r);
  const kernels::BroadcastPlan<1> plan(c.shape(0), {&small});
  const T* x = c.in(0).data();
  plan.each_row([&](const auto& offset, Index n, const auto& stride) {
    Y* y = out.data() + offset[0];
    if constexpr (std::is_same_v<T, Y>)
      if (stride[0] == 0) {
        *y = fold_row(std::exchange(x, x + n), n, *y, start, f);
        return;
      }
    for (Index i = 0; i < n; ++i) y[i * stride[0]] = f(y[i * stride[0]], x[i]);
    x += n;
  });
}

/// put(j, Σ term(x, j)), accumulated in double if T is floating-point.
template <class T, class F, class Put>
void fold_sum(Ctx<T> c, const Reduction& r, F term, Put put) {
  kernels::broadcast_sum(c.shape(0), c.in(0).data(), reduced(c.shape(0), r), term, put);
}

/// y = Σ term(x, j)
template <class T, class F>
void fold_sum(Ctx<T> c, const Reduction& r, F term) {
  T* y = c.out().data();
  fold_sum(c, r, term, [y](Index j, auto total) { y[j] = static_cast<T>(total); });
}

/// The reduction that a call requests. Throws ShapeError, naming the op, for an axis out of range.
inline Reduction reduction(const Tensor& x, const Axes& axes, bool keepdims, const char* op,
                           Site site) {
  return {x.defined() ? axes.mask(x.rank(), op, site) : 0, keepdims};  // undefined: the op throws
}

}  // namespace reel::detail
