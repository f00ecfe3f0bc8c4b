#pragma once

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>

// Shared by the kernels of the elementwise ops.
namespace reel::detail {
using namespace op;

/// y = f(x), elementwise.
template <class T, class F>
void map(Ctx<T> c, F f) {
  const T* x = c.in(0).data();
  T* y = c.out().data();
  const Index n = static_cast<Index>(c.out().size());
  for (Index i = 0; i < n; ++i) y[i] = f(x[i]);
}

/// y = f(a, b), elementwise with broadcasting.
template <class T, class F>
void map2(Ctx<T> c, F f) {
  kernels::broadcast_binary(c.out_shape(), c.out().data(), c.in(0).data(), c.shape(0),
                            c.in(1).data(), c.shape(1), f);
}

/// Calls an op on two operands, one of which may be a number.
inline Tensor binary(const Op<>& op, const Operand& a, const Operand& b, Site site) {
  Tensor number_a, number_b;
  return op({&a.resolve(b, number_a), &b.resolve(a, number_b)}, site);
}

/// The gradient of a map whose derivative at x is f(x).
template <class T, class F>
void map_gradient(BackwardCtx<T> c, F f) {
  const T *x = c.in(0), *g = c.g();
  T* to = c.grad(0);
  const Index n = c.shape(0).size();
  for (Index i = 0; i < n; ++i) to[i] = g[i] * f(x[i]);
}

/// g · slope, and 0 where the slope is 0, for an infinite or NaN g too: what an operation did not
/// take, or holds constant, has no part in its gradient.
Tensor times_slope(const Tensor& g, const Tensor& slope);

/// The gradient of a piecewise constant function.
inline constexpr auto flat =
    rule([](Vjp& v) { v.add(0, [&] { return zeros(v.shape(), v.g().dtype()); }); }, keeps_nothing);

}  // namespace reel::detail
