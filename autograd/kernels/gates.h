#pragma once

#include <reel/autograd/kernels/vector_math.h>

// Gates of the recurrent layers, in the form in which they are kept for the backward pass: one
// number, from which both the gate and its slope follow to the last places. A rounded gate would
// not do: in f32 s = sigmoid(17) rounds to 1, and s (1 - s), its slope, to 0.
namespace reel::kernels {

namespace detail {
/// Whether the sign bit is set; std::signbit would not be vectorised.
template <Real T>
[[gnu::always_inline]] inline bool negative(T x) {
  return std::bit_cast<std::make_signed_t<typename Format<T>::Bits>>(x) < 0;
}
}  // namespace detail

/// A sigmoid gate s is kept as the smaller one of s and 1 - s, with the sign bit set if that is
/// 1 - s. Only the sign bit tells: far out the number is a zero.
template <Real T>
[[gnu::always_inline]] inline T sigmoid_gate(T x) {
  const T e = detail::lifted_exp(-detail::copy_sign(x, T(1)));
  const T smaller = e / (detail::lifted_one<T> + e);
  return detail::negative(x) ? smaller : -smaller;
}
template <Real T>
[[gnu::always_inline]] inline T sigmoid_value(T gate) {
  return (detail::negative(gate) ? T(1) : T(0)) + gate;  // s or 1 - (1 - s)
}
/// 1 - s.
template <Real T>
[[gnu::always_inline]] inline T sigmoid_complement(T gate) {
  return (detail::negative(gate) ? T(0) : T(1)) - gate;  // 1 - s or 0 + (1 - s)
}
template <Real T>
[[gnu::always_inline]] inline T sigmoid_slope(T gate) {
  const T smaller = detail::copy_sign(gate, T(1));
  return smaller * (1 - smaller);
}

/// A gate tanh x is kept as e^2|x| - 1, with the sign of x. From `highest` on that is constant,
/// because 1 / (1 + e^2|x|) may not become subnormal; the slope stays at six times the least normal
/// number there.
template <Real T>
[[gnu::always_inline]] inline T tanh_gate(T x) {
  constexpr bool single = std::is_same_v<T, float>;
  constexpr T highest = single ? T(43.5) : T(354);
  constexpr T at_highest = single ? T(0x1.6db012p+125) : T(0x1.586f6bf260cf1p+1021);
  const T magnitude = detail::copy_sign(x, T(1));
  const T e = detail::expm1_of_twice(magnitude);
  return detail::copy_sign(magnitude > highest ? at_highest : e, x);
}
template <Real T>
[[gnu::always_inline]] inline T tanh_value(T gate) {
  return gate / (detail::copy_sign(gate, T(1)) + 2);
}
/// tanh x and its derivative sech^2 x.
template <Real T>
struct ValueSlope {
  T value, slope;
};
template <Real T>
[[gnu::always_inline]] inline ValueSlope<T> tanh_slope(T gate) {
  const T e = detail::copy_sign(gate, T(1));
  const T r = 1 / (e + 2), complement = r + r;  // 1 - |tanh x|
  return {gate * r, complement * (2 - complement)};
}

}  // namespace reel::kernels
