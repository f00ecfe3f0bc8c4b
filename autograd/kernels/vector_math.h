#pragma once

#include <reel/autograd/dtype.h>
#include <reel/autograd/kernels/level.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace reel::kernels {

// Elementary functions without branches, calls or lookup tables: loops over them are vectorised,
// and since every step is one IEEE operation, a vector lane, a loop tail and a single call give the
// same bits. Results are within 2 ulp, subnormals included, and correct for zeros, infinities and
// NaN.

namespace detail {

[[gnu::always_inline]] inline float copy_sign(float x, float y) {
  return __builtin_copysignf(x, y);
}
[[gnu::always_inline]] inline double copy_sign(double x, double y) {
  return __builtin_copysign(x, y);
}

/// a * b + c, rounded once where the process uses fused multiply-add.
template <Real T>
[[gnu::always_inline]] inline T multiply_add(T a, T b, T c) {
  if (!fuses()) return a * b + c;
  if constexpr (std::is_same_v<T, float>)
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
}

/// The polynomial of x with these coefficients, highest power first.
template <Real T, class... Coefficients>
[[gnu::always_inline]] inline T horner(T x, long double highest, Coefficients... lower) {
  T sum = T(highest);
  ((sum = multiply_add(sum, x, T(lower))), ...);
  return sum;
}

template <Real T>
struct Format;

// ln2_high has few enough bits that its product with an exponent is exact. Below lowest_exp the
// exponential is 0, above highest_exp infinite; -1 is expm1 below lowest_expm1, 1 is tanh above
// highest_tanh.
template <>
struct Format<float> {
  using Bits = std::uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Bits exponent_bias = 127;
  static constexpr float ln2_high = 0x1.62e4p-1F, ln2_low = 0x1.7f7d1cp-20F;
  static constexpr float lowest_exp = -104, highest_exp = 89, lowest_expm1 = -20, highest_tanh = 10;
};

template <>
struct Format<double> {
  using Bits = std::uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Bits exponent_bias = 1023;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double lowest_exp = -746, highest_exp = 710, lowest_expm1 = -40,
                          highest_tanh = 20;
};

/// 2^n, which must be a normal number.
template <Real T>
[[gnu::always_inline]] inline T power_of_two(typename Format<T>::Bits n) {
  return std::bit_cast<T>((n + Format<T>::exponent_bias) << Format<T>::mantissa_bits);
}

/// The nearest integer, as a number and as bits (modulo 2^width); |x| stays far below 2^mantissa.
template <Real T>
struct Rounded {
  T value;
  typename Format<T>::Bits bits;
};

template <Real T>
[[gnu::always_inline]] inline Rounded<T> round_to_integer(T x) {
  using Bits = typename Format<T>::Bits;
  // The last place of the sum is worth 1, so the integer appears in its low bits.
  constexpr T shifter = T(Bits{3} << (Format<T>::mantissa_bits - 1));
  const T shifted = x + shifter;
  return {shifted - shifter, std::bit_cast<Bits>(shifted) - std::bit_cast<Bits>(shifter)};
}

/// x = n ln 2 + r with |r| <= ln(2) / 2, and e^r = 1 + r + tail.
template <Real T>
struct Reduced {
  Rounded<T> n;
  T r, tail;
};

// Of `factor` times x, by a factor of 1 or 2.
template <Real T, int factor = 1>
[[gnu::always_inline]] inline Reduced<T> reduce(T x) {
  const Rounded<T> n = round_to_integer(x * T(factor * 1.4426950408889634074L));
  const T high = multiply_add(-n.value, Format<T>::ln2_high, factor * x);
  const T r = multiply_add(n.value, -Format<T>::ln2_low, high);
  T series;  // of (e^r - 1 - r) / r^2
  if constexpr (std::is_same_v<T, float>)
    series = horner(r, 1 / 5040.0L, 1 / 720.0L, 1 / 120.0L, 1 / 24.0L, 1 / 6.0L, 0.5L);
  else
    series = horner(r, 1 / 6227020800.0L, 1 / 479001600.0L, 1 / 39916800.0L, 1 / 3628800.0L,
                    1 / 362880.0L, 1 / 40320.0L, 1 / 5040.0L, 1 / 720.0L, 1 / 120.0L, 1 / 24.0L,
                    1 / 6.0L, 0.5L);
  return {n, r, series * (r * r)};
}

/// e^x - 1 for x >= lowest_expm1, except that the sign of zero is lost.
template <Real T>
[[gnu::always_inline]] inline T expm1_in_range(T x) {
  const Reduced<T> p = reduce(x);
  const T half = power_of_two<T>(p.n.bits - 1);  // of 2^n, which may itself be out of range
  return 2 * multiply_add(half, p.tail, multiply_add(half, p.r, half - T(0.5)));
}

/// e^2x - 1 for x >= 0 such that 2^n is a normal number.
template <Real T>
[[gnu::always_inline]] inline T expm1_of_twice(T x) {
  const Reduced<T> p = reduce<T, 2>(x);
  const T power = power_of_two<T>(p.n.bits);
  return multiply_add(power, p.tail, multiply_add(power, p.r, power - 1));
}

/// 2^n e^r, for a 2^n that is a normal number: it scales without rounding.
template <Real T>
[[gnu::always_inline]] inline T scaled(T power, const Reduced<T>& p) {
  return multiply_add(power, p.r + p.tail, power);
}

/// e^x for x from lowest_exp to highest_exp.
template <Real T>
[[gnu::always_inline]] inline T exp_in_range(T x) {
  const Reduced<T> p = reduce(x);
  // 2^n as two factors: the result may be subnormal or exceed the largest power of two.
  constexpr auto above = Format<T>::exponent_bias + 1;  // 2 above + n is positive
  const auto half = ((p.n.bits + 2 * above) >> 1) - above;
  return scaled(power_of_two<T>(half), p) * power_of_two<T>(p.n.bits - half);
}

/// e^x for x <= 0, times lifted_one, since it may be subnormal; quotients of such numbers are those
/// of the numbers themselves.
template <Real T>
constexpr T lifted_one = T(1ull << 32) * T(1ull << 32);
template <Real T>
[[gnu::always_inline]] inline T lifted_exp(T x) {
  const Reduced<T> p = reduce(x);
  const T e = scaled(power_of_two<T>(p.n.bits + 64), p);
  // Not before: GCC would compute everything for the bound apart, and blend at several places.
  return x < Format<T>::lowest_exp ? T(0) : e;
}

}  // namespace detail

/// e^x.
template <Real T>
[[gnu::always_inline]] inline T vexp(T x) {
  using F = detail::Format<T>;
  x = x < F::lowest_exp ? F::lowest_exp : x;
  x = x > F::highest_exp ? F::highest_exp : x;
  return detail::exp_in_range(x);
}

/// e^x - 1, accurate near zero.
template <Real T>
[[gnu::always_inline]] inline T vexpm1(T x) {
  using F = detail::Format<T>;
  T y = x < F::lowest_expm1 ? F::lowest_expm1 : x;
  y = y > F::highest_exp ? F::highest_exp : y;
  const T magnitude = detail::copy_sign(x, T(1));
  const T result = detail::expm1_in_range(y);
  return magnitude < std::numeric_limits<T>::epsilon() / 4 ? x : result;
}

/// The natural logarithm: -infinity for zeros, NaN below.
template <Real T>
[[gnu::always_inline]] inline T vlog(T x) {
  using F = detail::Format<T>;
  using Bits = typename F::Bits;
  using Limits = std::numeric_limits<T>;
  constexpr T lift = T(Bits{1} << (F::mantissa_bits + 1));  // makes a subnormal number normal
  const bool subnormal = x < Limits::min();
  const T normal = subnormal ? x * lift : x;

  // normal = 2^(biased - bias) * m with sqrt(1/2) <= m < sqrt(2).
  constexpr Bits sqrt_half = std::bit_cast<Bits>(T(0.70710678118654752440L));
  const Bits bits = std::bit_cast<Bits>(normal);
  const Bits biased =
      (bits - sqrt_half + (F::exponent_bias << F::mantissa_bits)) >> F::mantissa_bits;
  const T m = std::bit_cast<T>(bits - ((biased - F::exponent_bias) << F::mantissa_bits));
  // An integer below 2^mantissa_bits, placed in the mantissa of that power, becomes a
  // floating-point number.
  constexpr T shifter = T(Bits{1} << F::mantissa_bits);
  const T exponent = std::bit_cast<T>(std::bit_cast<Bits>(shifter) + biased) -
                     (shifter + T(F::exponent_bias)) - (subnormal ? T(F::mantissa_bits + 1) : T(0));

  // With s = f / (2 + f): log(1 + f) = 2 (s + s^3/3 + s^5/5 + ...) = f - f^2/2 + s (f^2/2 + R),
  // R = 2 (s^2/3 + s^4/5 + ...).
  const T f = m - 1;
  const T s = f / (2 + f);
  const T z = s * s;
  T series;
  if constexpr (std::is_same_v<T, float>)
    series = detail::horner(z, 2 / 11.0L, 2 / 9.0L, 2 / 7.0L, 2 / 5.0L, 2 / 3.0L);
  else
    series = detail::horner(z, 2 / 23.0L, 2 / 21.0L, 2 / 19.0L, 2 / 17.0L, 2 / 15.0L, 2 / 13.0L,
                            2 / 11.0L, 2 / 9.0L, 2 / 7.0L, 2 / 5.0L, 2 / 3.0L);
  const T half_square = f * f * T(0.5);
  const T correction = s * (half_square + z * series) + exponent * F::ln2_low;
  T result = exponent * F::ln2_high - ((half_square - correction) - f);
  result = x == Limits::infinity() ? x : result;
  result = x == 0 ? -Limits::infinity() : result;
  return x >= 0 ? result : Limits::quiet_NaN();
}

/// ln(1 + x), accurate near zero.
template <Real T>
[[gnu::always_inline]] inline T vlog1p(T x) {
  using Limits = std::numeric_limits<T>;
  const T u = 1 + x;
  const T lost = (x - (u - 1)) / u;  // rounding error of x in the sum, relative to it
  const T result = vlog(u) + lost;
  const bool exact = u == 0 || u == Limits::infinity();  // where that error is NaN
  return detail::copy_sign(x, T(1)) < Limits::epsilon() / 4 ? x : exact ? vlog(u) : result;
}

namespace detail {

/// x = 2^n (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), for a normal number x > 0.
struct Normalized {
  std::int32_t n;
  float f;
};
[[gnu::always_inline]] inline Normalized normalized(float x) {
  constexpr std::uint32_t sqrt_half = std::bit_cast<std::uint32_t>(0.70710678F);
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::int32_t n = static_cast<std::int32_t>(bits - sqrt_half) >> 23;
  return {n, std::bit_cast<float>(bits - (static_cast<std::uint32_t>(n) << 23)) - 1};
}

/// A number as the sum of two, of which `low` has the digits that `high` has no place for.
struct Pair {
  float high, low;
};

/// c + a * b without rounding, where c is at least half of the sum. Needs fused multiply-add.
[[gnu::always_inline]] inline Pair exact_sum(float c, float a, float b) {
  const float sum = multiply_add(a, b, c);
  return {sum, multiply_add(a, b, c - sum)};
}

/// c + p * x, likewise, but for the last digits of `low`.
[[gnu::always_inline]] inline Pair horner_step(Pair c, Pair p, float x) {
  const Pair sum = exact_sum(c.high, p.high, x);
  return {sum.high, multiply_add(p.low, x, sum.low + c.low)};
}

/// The binary logarithm of a normal number x > 0, to 2^-31 of itself. Needs fused multiply-add.
[[gnu::always_inline]] inline Pair log2_pair(float x) {
  const auto [n, f] = normalized(x);
  // log2(1 + f) = f p(f), of which the first terms need more digits.
  const float series =
      horner(f, -0x1.5be26p-4L, 0x1.3b0ac6p-3L, -0x1.41c336p-3L, 0x1.461422p-3L, -0x1.6eb6f2p-3L,
             0x1.a60dc2p-3L, -0x1.ec8c84p-3L, 0x1.27774cp-2L, -0x1.71543ap-2L);
  Pair p = exact_sum(0x1.ec709cp-2F, series, f);
  p = horner_step({-0x1.715476p-1F, -0x1.d97c1ep-27F}, p, f);
  p = horner_step({0x1.715476p+0F, 0x1.4ae0cp-26F}, p, f);
  const Pair sum = exact_sum(static_cast<float>(n), p.high, f);
  return {sum.high, multiply_add(p.low, f, sum.low)};
}

/// y log2(x), nearly as accurate as its exponential has to be for its last place to be right.
[[gnu::always_inline]] inline Pair times_log2(float y, float x) {
  if (!fuses()) {
    const double product = y * (vlog(static_cast<double>(x)) * 1.4426950408889634074);
    const float high = static_cast<float>(product);
    const float low = static_cast<float>(product - static_cast<double>(high));
    return {high, low == low ? low : 0};  // not infinity - infinity
  }
  const Pair log2 = log2_pair(x);
  const float high = y * log2.high;
  return {high, multiply_add(y, log2.low, multiply_add(y, log2.high, -high))};
}

/// 2^x, 0 where it is subnormal.
[[gnu::always_inline]] inline float exp2_of(Pair x) {
  // x = n + r with |r| <= 1/2.
  constexpr float shifter = 0x1.8p23F;
  const auto rounded = std::bit_cast<std::int32_t>(x.high + shifter);
  const std::int32_t n = std::min(rounded - std::bit_cast<std::int32_t>(shifter), 128);
  const float r = (x.high - static_cast<float>(n)) + x.low;
  const float series = horner(r, 0x1.2080bp-16L, 0x1.436e6ap-13L, 0x1.5d52ep-10L, 0x1.3b2ad4p-7L,
                              0x1.c6b0bp-5L, 0x1.ebfbep-3L, 0x1.62e43p-1L, 1.0L);
  // The exponent is added, as 2^128 is no number; a sum beyond infinity is infinity.
  const std::uint32_t sum =
      std::bit_cast<std::uint32_t>(series) + (static_cast<std::uint32_t>(n) << 23);
  const float power = std::bit_cast<float>(std::min(sum, std::uint32_t{0x7F800000}));
  return x.high < -126 ? 0 : x.high == x.high ? power : x.high;
}

}  // namespace detail

/// An exponent e other than 0 and NaN, prepared once for powers of many numbers.
struct FloatExponent {
  float value;         // with as many digits before the point as matter
  std::uint32_t sign;  // the sign bit, which the powers of negative numbers have if e is odd
  float of_negative;   // the factor of their powers: NaN if e is not whole

  [[gnu::always_inline]] explicit FloatExponent(float e) : value(e) {
    constexpr float largest = 0x1p32F;  // powers of all numbers but 1 are 0 or infinite
    value = e < -largest ? -largest : e;
    value = value > largest ? largest : value;
    const float whole = __builtin_floorf(value), half = value / 2;
    of_negative = whole == value ? 1.0F : std::numeric_limits<float>::quiet_NaN();
    sign = whole == value ? std::uint32_t{__builtin_floorf(half) != half} << 31 : 0;
  }
};
[[gnu::always_inline]] inline FloatExponent prepared(float e) { return FloatExponent(e); }
[[gnu::always_inline]] inline double prepared(double e) { return e; }

/// x^e with the special values of std::pow, where subnormal numbers are 0.
[[gnu::always_inline]] inline float vpow(float x, const FloatExponent& e) {
  constexpr float least = std::numeric_limits<float>::min(),
                  most = std::numeric_limits<float>::max(),
                  infinity = std::numeric_limits<float>::infinity();
  const float magnitude = detail::copy_sign(x, 1.0F);
  const bool regular = (magnitude >= least) & (magnitude <= most);
  detail::Pair power = detail::times_log2(e.value, magnitude);
  // The logarithm of 0 is -infinity, those of infinity and NaN are themselves.
  const float special = e.value * (magnitude < least ? -infinity : magnitude);
  power.high = regular ? power.high : special;
  float result = detail::exp2_of(power);
  result = std::bit_cast<float>(std::bit_cast<std::uint32_t>(result) ^
                                (std::bit_cast<std::uint32_t>(x) & e.sign));
  return (regular & (x < 0)) ? result * e.of_negative : result;
}
[[gnu::always_inline]] inline float vpow(float x, float e) {
  const float power = vpow(x, FloatExponent(e));
  return ((e == 0) | (x == 1)) ? 1.0F : power;
}
[[gnu::always_inline]] inline double vpow(double x, double e) {
  // std::pow reads the bits of subnormal numbers.
  const auto normal = [](double v) {
    return std::abs(v) < std::numeric_limits<double>::min() ? 0 * v : v;
  };
  return std::pow(normal(x), normal(e));
}

/// ln(1 + e^-|x|), which softplus(x) adds to the larger of x and 0.
template <Real T>
[[gnu::always_inline]] inline T vsoftplus_rest(T x) {
  const T lifted = detail::lifted_exp(-detail::copy_sign(x, T(1)));
  const T e = lifted * (1 / detail::lifted_one<T>);
  if constexpr (std::is_same_v<T, double>)
    return vlog1p(e);
  else  // without a division, as e <= 1
    return detail::multiply_add(e * e,
                                detail::horner(e, -0x1.b1249ep-9L, 0x1.4a025ep-6L, -0x1.d76dbp-5L,
                                               0x1.b4fdf8p-4L, -0x1.3a5644p-3L, 0x1.93504p-3L,
                                               -0x1.ff248ap-3L, 0x1.554dd4p-2L, -0x1.ffffd2p-2L),
                                e);
}

/// ln(1 + e^x), without overflow.
template <Real T>
[[gnu::always_inline]] inline T vsoftplus(T x) {
  return (x > 0 ? x : T(0)) + vsoftplus_rest(x);
}

/// The cosine of x full turns, cos(2 pi x).
template <Real T>
[[gnu::always_inline]] inline T vcos_turns(T x) {
  const auto quarter = detail::round_to_integer(4 * x);
  const T angle = (x - quarter.value * T(0.25)) * T(6.283185307179586476925L);  // up to pi / 4
  const T z = angle * angle;
  const T cosine =
      detail::horner(z, 1 / 20922789888000.0L, -1 / 87178291200.0L, 1 / 479001600.0L,
                     -1 / 3628800.0L, 1 / 40320.0L, -1 / 720.0L, 1 / 24.0L, -0.5L, 1.0L);
  const T sine = angle * detail::horner(z, 1 / 355687428096000.0L, -1 / 1307674368000.0L,
                                        1 / 6227020800.0L, -1 / 39916800.0L, 1 / 362880.0L,
                                        -1 / 5040.0L, 1 / 120.0L, -1 / 6.0L, 1.0L);
  const T value = quarter.bits & 1 ? sine : cosine;
  return (quarter.bits + 1) & 2 ? -value : value;
}

/// The hyperbolic tangent.
template <Real T>
[[gnu::always_inline]] inline T vtanh(T x) {
  using F = detail::Format<T>;
  T magnitude = detail::copy_sign(x, T(1));
  magnitude = magnitude > F::highest_tanh ? F::highest_tanh : magnitude;
  const T e = detail::expm1_in_range(2 * magnitude);
  return detail::copy_sign(e / (e + 2), x);
}

/// Its derivative sech^2 x = 4 e / (1 + e)^2 with e = e^(-2|x|); 1 - tanh^2 x would lose all
/// accuracy where tanh x rounds to 1.
template <Real T>
[[gnu::always_inline]] inline T vsech_square(T x) {
  const T e = detail::lifted_exp(-2 * detail::copy_sign(x, T(1))) * (1 / detail::lifted_one<T>);
  return 4 * e / ((1 + e) * (1 + e));
}

/// The logistic function 1 / (1 + e^-x).
template <Real T>
[[gnu::always_inline]] inline T vsigmoid(T x) {
  constexpr T one = detail::lifted_one<T>;
  const T e = detail::lifted_exp(-detail::copy_sign(x, T(1)));
  return (x < 0 ? e : one) / (one + e);
}

}  // namespace reel::kernels
