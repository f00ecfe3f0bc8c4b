#pragma once

#include <bit>
#include <concepts>
#include <tuple>
#include <type_traits>

#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/gates.h>
#include <reel/autograd/ops.h>

/// The language in which the pointwise part of a cell is written: once, as a function of one unit,
///
///     static auto unit(const auto& sums, const auto& before) {
///       const auto& [i_sum, f_sum, g_sum, o_sum] = sums;
///       const auto& [h, c] = before;
///       const auto i = sigmoid(i_sum);
///       const auto f = sigmoid(f_sum);
///       const auto g = tanh(g_sum);
///       const auto o = sigmoid(o_sum);
///       const auto c_next = f * c + i * g;
///       return std::tuple(o * tanh(c_next), c_next);
///     }
///
/// Given numbers, this text is the forward kernel; given numbers that know their derivatives, the
/// backward kernel; given tensors, the specification, and with it the derivatives of every order.
/// Which derivatives a number has is part of its type, so what is not there costs nothing, and all
/// of it stays in vector registers. The derivatives are carried forward: a unit has few inputs, and
/// most of its numbers depend on one or two of them.
///
/// A pre-activation (a gate's sum) goes through one sigmoid or tanh, perhaps after something was
/// added to it; what that kept is what the backward pass reads, so that it computes no exponential
/// again. To use a sum in any other way, or in several ways, write number(sum), and use that.
///
/// A function that the text calls has to be [[gnu::always_inline]]: a call left in the loop over
/// units would keep that from being vectorised.
namespace reel::unit {

/// The derivatives with respect to the inputs whose bits `Inputs` has: one base class for each, as
/// compilers do not keep an array in registers.
template <Real T, unsigned Inputs>
struct Slopes : Slopes<T, (Inputs & (Inputs - 1))> {
  using Others = Slopes<T, (Inputs & (Inputs - 1))>;
  T slope;  // with respect to the lowest bit

  [[gnu::always_inline]] Slopes() {}
  [[gnu::always_inline]] Slopes(const Slopes& other) : Others(other), slope(other.slope) {}
};
template <Real T>
struct Slopes<T, 0> {
  [[gnu::always_inline]] Slopes() {}
  [[gnu::always_inline]] Slopes(const Slopes&) {}
};

namespace detail {
/// `inputs` without the bits below `bit`.
constexpr unsigned from(unsigned inputs, unsigned bit) { return inputs & ~(bit - 1); }
}  // namespace detail

/// The derivative with respect to the input of a bit.
template <unsigned Bit, Real T, unsigned I>
[[gnu::always_inline]] inline T& slope(Slopes<T, I>& of) {
  return static_cast<Slopes<T, detail::from(I, Bit)>&>(of).slope;
}
template <unsigned Bit, Real T, unsigned I>
[[gnu::always_inline]] inline T slope(const Slopes<T, I>& of) {
  return static_cast<const Slopes<T, detail::from(I, Bit)>&>(of).slope;
}

/// Calls f(std::integral_constant<unsigned, bit>) for each bit.
template <unsigned Inputs, class F>
[[gnu::always_inline]] inline void each_input(F f) {
  if constexpr (Inputs != 0) {
    f(std::integral_constant<unsigned, (Inputs & -Inputs)>{});
    each_input<(Inputs & (Inputs - 1))>(f);
  }
}

/// A number and its derivatives.
template <Real T, unsigned I>
struct Number : Slopes<T, I> {
  static constexpr unsigned inputs = I;
  T value;

  [[gnu::always_inline]] explicit Number(T x) : value(x) {}
  [[gnu::always_inline]] Number(const Number& other) : Slopes<T, I>(other), value(other.value) {}
};

/// A number in (0, 1) that also knows 1 - itself, to the last place.
template <Real T, unsigned I>
struct Gate : Number<T, I> {
  T complement;

  [[gnu::always_inline]] Gate(T x, T one_minus_x) : Number<T, I>(x), complement(one_minus_x) {}
  [[gnu::always_inline]] Gate(const Gate& other)
      : Number<T, I>(other), complement(other.complement) {}
};

/// The forward pass runs the text twice over a row: first with new sums, for what they keep, and
/// then, as the backward pass does, with what was kept as their values. (One loop would be a single
/// chain of nonlinearities, too long for the processor to overlap with that of the next units.) A
/// definition is checked with sums that count how they are used.
enum class Mode { fresh, kept, counted };

/// What checks a sum's use: every nonlinearity has to keep the same number.
template <Real T>
struct Use {
  T kept = 0;
  int count = 0;
  bool ambiguous = false;
  kernels::GateForm form = kernels::GateForm::number;
};

/// A pre-activation, and where what its nonlinearity yields is kept.
template <Real T, unsigned I, Mode mode>
struct Sum : Slopes<T, I> {
  using Place = std::conditional_t<mode == Mode::counted, Use<T>, T>;
  T value;
  Place* kept;

  [[gnu::always_inline]] Sum(T x, Place* place) : value(x), kept(place) {}
  [[gnu::always_inline]] Sum(const Sum& other)
      : Slopes<T, I>(other), value(other.value), kept(other.kept) {}
};

/// y = f(a) from its value and its slope.
template <class Y, Real T, unsigned I>
[[gnu::always_inline]] inline Y with_slope(Y y, const Slopes<T, I>& a, T slope_of_f) {
  each_input<I>([&](auto bit)
                    __attribute__((always_inline)) { slope<bit>(y) = slope_of_f * slope<bit>(a); });
  return y;
}
/// y = f(a, b), where for an input that both depend on its slope is both(a's, b's).
template <class Y, Real T, unsigned A, unsigned B, class OfA, class OfB>
[[gnu::always_inline]] inline Y with_slopes(Y y, const Slopes<T, A>& a, const Slopes<T, B>& b,
                                            OfA of_a, OfB of_b) {
  each_input<A | B>([&](auto bit) __attribute__((always_inline)) {
    if constexpr ((A & B & bit) != 0)
      slope<bit>(y) = of_a(slope<bit>(a)) + of_b(slope<bit>(b));
    else if constexpr ((A & bit) != 0)
      slope<bit>(y) = of_a(slope<bit>(a));
    else
      slope<bit>(y) = of_b(slope<bit>(b));
  });
  return y;
}

/// x: how a slope goes through a sum.
template <Real T>
[[gnu::always_inline]] inline T same(T x) {
  return x;
}

// --- functions of numbers ---

/// The value of the operation, and its derivatives.
template <Real T, unsigned A, unsigned B>
[[gnu::always_inline]] inline auto operator+(const Number<T, A>& a, const Number<T, B>& b) {
  return with_slopes(Number<T, A | B>(a.value + b.value), a, b, same<T>, same<T>);
}
template <Real T, unsigned A, unsigned B>
[[gnu::always_inline]] inline auto operator-(const Number<T, A>& a, const Number<T, B>& b) {
  return with_slopes(
      Number<T, A | B>(a.value - b.value), a, b,
      [](T x) __attribute__((always_inline)) { return x; },
      [](T x) __attribute__((always_inline)) { return -x; });
}
template <Real T, unsigned A, unsigned B>
[[gnu::always_inline]] inline auto operator*(const Number<T, A>& a, const Number<T, B>& b) {
  return with_slopes(
      Number<T, A | B>(a.value * b.value), a,
      b, [&](T x) __attribute__((always_inline)) { return x * b.value; },
      [&](T x) __attribute__((always_inline)) { return a.value * x; });
}
template <Real T, unsigned A, unsigned B>
[[gnu::always_inline]] inline auto operator/(const Number<T, A>& a, const Number<T, B>& b) {
  const T inverse = 1 / b.value, quotient = a.value / b.value;
  return with_slopes(
      Number<T, A | B>(quotient), a,
      b, [&](T x) __attribute__((always_inline)) { return x * inverse; },
      [&](T x) __attribute__((always_inline)) { return -quotient * inverse * x; });
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto operator-(const Number<T, I>& a) {
  return with_slope(Number<T, I>(-a.value), a, T(-1));
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto operator+(const Number<T, I>& a, double b) {
  return with_slope(Number<T, I>(a.value + T(b)), a, T(1));
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto operator+(double a, const Number<T, I>& b) {
  return b + a;
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto operator-(const Number<T, I>& a, double b) {
  return a + -b;
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto operator-(double a, const Number<T, I>& b) {
  return with_slope(Number<T, I>(T(a) - b.value), b, T(-1));
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto operator*(const Number<T, I>& a, double b) {
  return with_slope(Number<T, I>(a.value * T(b)), a, T(b));
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto operator*(double a, const Number<T, I>& b) {
  return b * a;
}
/// 1 - gate, which does not round where the gate is nearly 1.
template <std::same_as<int> One, Real T, unsigned I>
[[gnu::always_inline]] inline auto operator-(One, const Gate<T, I>& gate) {
  return with_slope(Number<T, I>(gate.complement), gate, T(-1));
}

/// eˣ, σ(x) and tanh x; those of a gate from what the sum before it kept.
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto exp(const Number<T, I>& x) {
  const T y = kernels::vexp(x.value);
  return with_slope(Number<T, I>(y), x, y);
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto sigmoid_of_gate(T gate, const Slopes<T, I>& x) {
  return with_slope(Gate<T, I>(kernels::sigmoid_value(gate), kernels::sigmoid_complement(gate)), x,
                    kernels::sigmoid_slope(gate));
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto sigmoid(const Number<T, I>& x) {
  return sigmoid_of_gate(kernels::sigmoid_gate(x.value), x);
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto tanh_of_gate(T gate, const Slopes<T, I>& x) {
  if constexpr (I == 0) return Number<T, 0>(kernels::tanh_value(gate));
  const auto [value, slope_there] = kernels::tanh_slope(gate);
  return with_slope(Number<T, I>(value), x, slope_there);
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto tanh(const Number<T, I>& x) {
  return tanh_of_gate(kernels::tanh_gate(x.value), x);
}
/// ln σ(x) = -softplus(-x).
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto log_sigmoid(const Number<T, I>& x) {
  const T y = -kernels::vsoftplus(-x.value);
  return with_slope(Number<T, I>(y), x, kernels::vsigmoid(-x.value));
}
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto relu(const Number<T, I>& x) {
  const bool positive = x.value > 0;
  return with_slope(Number<T, I>(x.value < 0 ? T(0) : x.value), x, positive ? T(1) : T(0));
}
template <Real T, unsigned A, unsigned B>
[[gnu::always_inline]] inline auto maximum(const Number<T, A>& a, const Number<T, B>& b) {
  // At a tie each has half, as in reel::maximum.
  const T of_a = a.value > b.value ? T(1) : a.value < b.value ? T(0) : T(0.5);
  const T larger = a.value > b.value ? a.value : b.value;  // b where one is NaN
  return with_slopes(
      Number<T, A | B>(a.value == a.value ? larger : a.value), a,
      b, [&](T x) __attribute__((always_inline)) { return of_a * x; },
      [&](T x) __attribute__((always_inline)) { return (1 - of_a) * x; });
}

/// a where n > 0, otherwise b.
template <Real T, unsigned N, unsigned A, unsigned B>
[[gnu::always_inline]] inline auto if_positive(const Number<T, N>& n, const Number<T, A>& a,
                                               const Number<T, B>& b) {
  const bool first = n.value > 0;
  return with_slopes(
      Number<T, A | B>(first ? a.value : b.value), a,
      b, [=](T x) __attribute__((always_inline)) { return first ? x : T(0); },
      [=](T x) __attribute__((always_inline)) { return first ? T(0) : x; });
}
/// x between -bound and bound, with the slope 1 there and 0 beyond.
template <Real T, unsigned I>
[[gnu::always_inline]] inline auto clipped(const Number<T, I>& x, const Number<T, 0>& bound) {
  const bool above = x.value > bound.value, below = x.value < -bound.value;
  const T value = above ? bound.value : below ? -bound.value : x.value;
  return with_slope(Number<T, I>(value), x, above || below ? T(0) : T(1));
}

// --- functions of sums ---

/// A sum to which something was added is a sum.
template <Real T, unsigned A, unsigned B, Mode mode>
[[gnu::always_inline]] inline auto operator+(const Sum<T, A, mode>& a, const Number<T, B>& b) {
  const T value = mode == Mode::kept ? a.value : a.value + b.value;
  return with_slopes(Sum<T, A | B, mode>(value, a.kept), a, b, same<T>, same<T>);
}
/// f(value), which is kept, or what was kept.
template <auto f, Real T, unsigned I, Mode mode>
[[gnu::always_inline]] inline T keep(const Sum<T, I, mode>& sum) {
  if constexpr (mode == Mode::kept) {
    return sum.value;
  } else if constexpr (mode == Mode::fresh) {
    return *sum.kept = f(sum.value);
  } else {
    const T y = f(sum.value);
    sum.kept->ambiguous |= sum.kept->count++ > 0 && sum.kept->kept != y;
    if constexpr (f == &kernels::sigmoid_gate<T>)
      sum.kept->form = kernels::GateForm::sigmoid;
    else if constexpr (f == &kernels::tanh_gate<T>)
      sum.kept->form = kernels::GateForm::tanh;
    return sum.kept->kept = y;
  }
}
template <Real T, unsigned I, Mode mode>
[[gnu::always_inline]] inline auto sigmoid(const Sum<T, I, mode>& sum) {
  return sigmoid_of_gate(keep<&kernels::sigmoid_gate<T>>(sum), sum);
}
template <Real T, unsigned I, Mode mode>
[[gnu::always_inline]] inline auto tanh(const Sum<T, I, mode>& sum) {
  return tanh_of_gate(keep<&kernels::tanh_gate<T>>(sum), sum);
}
template <Real T, unsigned I, Mode mode>
[[gnu::always_inline]] inline auto number(const Sum<T, I, mode>& sum) {
  return with_slope(Number<T, I>(keep<&same<T>>(sum)), sum, T(1));
}
template <Real T, unsigned I, Mode mode>
[[gnu::always_inline]] inline auto relu(const Sum<T, I, mode>& sum) {
  return relu(number(sum));
}

// --- the same for tensors ---

/// A pre-activation that is a tensor.
struct TensorSum : Tensor {};
/// σ(sum), whose complement is σ(-sum).
struct TensorGate : Tensor {
  Tensor sum;
};
inline TensorSum operator+(const TensorSum& a, const Tensor& b) { return {add(a, b)}; }
inline TensorGate sigmoid(const TensorSum& sum) { return {reel::sigmoid(sum), sum}; }
inline Tensor operator-(int, const TensorGate& gate) { return reel::sigmoid(neg(gate.sum)); }
inline const Tensor& number(const TensorSum& sum) { return sum; }

}  // namespace reel::unit

namespace reel {

/// The functions of numbers in unit.h for tensors, beside those that there are.
inline Tensor if_positive(const Tensor& n, const Tensor& a, const Tensor& b) {
  return where(n > 0.0, a, b);
}
inline Tensor clipped(const Tensor& x, const Tensor& bound) {
  return where(x > bound, bound, where(x < -bound, -bound, x));
}

}  // namespace reel
