#pragma once

#include <cmath>

#include <reel/autograd/ops.h>

// A term of a loss whose factor is 0 is skipped, whatever its values: 0 times an infinity or a NaN
// must reach neither the value nor a gradient.
namespace reel::detail {

/// factor · f(), or 0 without calling f if the factor is 0.
template <class T, class F>
T unless_zero(T factor, F f) {
  return factor == 0 ? T(0) : factor * static_cast<T>(f());
}

/// The gradient of a position's weight, from its loss minus what a mean subtracts; 0 where the
/// weight is 0 and the loss not finite, since such a position is skipped.
inline double weight_slope(double weight, double loss, double subtracted) {
  return weight == 0 && !std::isfinite(loss) ? 0 : loss - subtracted;
}

/// 1 at positions that are skipped: those of weight 0 whose loss is not finite.
inline Tensor skipped(const Tensor& weights, const Tensor& losses) {
  const Tensor weight = weights.detach(), loss = losses.detach(), zero = scalar(0, weight.dtype());
  return logical_and(equal(weight, zero), not_equal(loss - loss, zero));
}

/// x, with 0 for elements that are not finite and have a factor of 0.
inline Tensor without_uncounted(const Tensor& x, const Tensor& factors) {
  const Tensor value = x.detach(), factor = factors.detach(), zero = scalar(0, x.dtype());
  const Tensor finite = equal(value - value, zero);
  return masked_fill(x, logical_and(equal(factor, zero), logical_not(finite)), 0);
}

/// factor · x, with 0 for skipped elements.
inline Tensor product(const Tensor& factor, const Tensor& x) {
  return factor * without_uncounted(x, factor);
}

}  // namespace reel::detail
