#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <numbers>

#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/elementwise.h>

namespace reel {
using namespace op;
namespace {

using detail::flat;
using detail::map;
using detail::times_slope;

// --- powers, exponentials and logarithms ---

REEL_EARLY const Op<> neg_op{{
    .name = "neg",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c) { map(c, [](T x) { return static_cast<T>(-Modular<T>(x)); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return -v.g(); }); }, keeps_nothing),
    .samples = {normal({3, 4}), normal({}), normal({0, 2})},
}};

REEL_EARLY const Op<> square_op{{
    .name = "square",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c) {
          map(c, [](T x) { return static_cast<T>(Modular<T>(x) * Modular<T>(x)); });
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * v.in() * 2.0; }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({}), normal({0, 2})},
}};

// The root of -0 is 0, as pow(x, 0.5) has it: its slope is then +∞, the limit.
REEL_EARLY const Op<> sqrt_op{{
    .name = "sqrt",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::sqrt(x + T(0)); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() / (2 * v.out()); }); }, keeps_output),
    .samples = {positive({3, 4}), positive({}), positive({17})},
}};

REEL_EARLY const Op<> rsqrt_op{{
    .name = "rsqrt",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return 1 / std::sqrt(x); }); },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return v.g() * v.out() * (-0.5 * v.out()) * v.out(); }); },
             keeps_output),
    .samples = {positive({3, 4}), positive({}), positive({17}), positive({0})},
}};

REEL_EARLY const Op<> reciprocal_op{{
    .name = "reciprocal",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return 1 / x; }); },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return -(v.g() * v.out() * v.out()); }); }, keeps_output),
    .samples = {positive({3, 4}), values({-2, -0.5, 40}), positive({17}), positive({0, 3})},
}};

struct Exponent {
  double value;
};

// Common exponents have their own loops, with the special values of std::pow.
template <class T>
void power(Ctx<T> c, double exponent) {
  if (exponent == 1) return map(c, [](T x) { return x; });
  if (exponent == 2) return map(c, [](T x) { return x * x; });
  if (exponent == 3) return map(c, [](T x) { return x * x * x; });
  if (exponent == -1) return map(c, [](T x) { return 1 / x; });
  if (exponent == 0.5)
    return map(c, [](T x) {
      constexpr T infinity = std::numeric_limits<T>::infinity();
      return x == -infinity ? infinity : std::sqrt(x + T(0));  // which turns -0 into 0
    });
  const T e = static_cast<T>(exponent);
  if (e == 0) return map(c, [](T) { return T(1); });
  if (std::isnan(e)) return map(c, [e](T x) { return x == 1 ? x : e; });
  map(c, [e = kernels::prepared(e)](T x) { return kernels::vpow(x, e); });
}

REEL_EARLY const Op<Exponent> pow_scalar_op{{
    .name = "pow_scalar",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c, const Exponent& exponent) { power(c, exponent.value); },
    .gradient = rule(
        [](Vjp& v, const Exponent& exponent) {
          v.add(0, [&] {
            const double e = exponent.value;
            if (e == 0) return zeros(v.shape(), v.g().dtype());
            // x to the power of e - 1 could overflow where g x^e / x does not.
            if (e < 0) return v.g() * pow(v.in(), e) / v.in() * e;
            return v.g() * pow(v.in(), e - 1) * e;
          });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3, 4})).attr(Exponent{3}),
                with_inputs(normal({17})).attr(Exponent{2}),
                with_inputs(positive({3, 4})).attr(Exponent{-1.5}),
                with_inputs(positive({})).attr(Exponent{0.5}),
                with_inputs(normal({2, 1})).attr(Exponent{0}),
                with_inputs(values({-2, 0, 40})).attr(Exponent{1}),
                with_inputs(positive({0})).attr(Exponent{2.5})},
}};

REEL_EARLY const Op<> exp_op{{
    .name = "exp",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vexp(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * v.out(); }); }, keeps_output),
    .samples = {normal({3, 4}), normal({}), normal({17}), normal({0})},
}};

REEL_EARLY const Op<> expm1_op{{
    .name = "expm1",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vexpm1(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * exp(v.in()); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, -1e-9, 0, 1e-9, 40}), normal({0})},
}};

REEL_EARLY const Op<> log_op{{
    .name = "log",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vlog(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() / v.in(); }); }, keeps_inputs),
    .samples = {positive({3, 4}), positive({}), positive({17})},
}};

REEL_EARLY const Op<> log1p_op{{
    .name = "log1p",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vlog1p(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() / (1 + v.in()); }); }, keeps_inputs),
    .samples = {positive({3, 4}), positive({17}), values({-0.75, -1e-9, 0, 1e-9, 1e6}),
                positive({0})},
}};

// --- trigonometric functions and erf ---

// g 2/√π e^(-x²), where ln(2/√π) is in the exponent. At 30 this is 0; clamped there, x has no
// infinity that a second derivative would multiply by 0.
Tensor erf_slope(const Vjp& v) {
  constexpr double log_peak = 0.120782237635245222;
  return v.g() * exp(log_peak - square(clamp(v.in(), -30.0, 30.0)));
}

REEL_EARLY const Op<> sin_op{{
    .name = "sin",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::sin(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * cos(v.in()); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40}), normal({0})},
}};

REEL_EARLY const Op<> cos_op{{
    .name = "cos",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::cos(x); }); },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return -(v.g() * sin(v.in())); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40}), normal({0})},
}};

REEL_EARLY const Op<> tan_op{{
    .name = "tan",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::tan(x); }); },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return v.g() * (1 + square(v.out())); }); }, keeps_output),
    .samples = {uniform({3, 4}, -1.2, 1.2), uniform({17}, 2, 4), values({-40, 0, 40}), normal({0})},
}};

REEL_EARLY const Op<> erfc_op{{
    .name = "erfc",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::erfc(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return -erf_slope(v); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40}), normal({0})},
}};

REEL_EARLY const Op<> erf_op{{
    .name = "erf",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::erf(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return erf_slope(v); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40}), normal({0})},
}};

// --- piecewise linear functions ---

REEL_EARLY const Op<> abs_op{{
    .name = "abs",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c) {
          map(c, [](T x) {
            if constexpr (std::is_floating_point_v<T>)
              return std::abs(x);  // also for -0
            else
              return x < 0 ? static_cast<T>(-Modular<T>(x)) : x;
          });
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return times_slope(v.g(), sign(v.in())); }); },
                     keeps_inputs),
    .samples = {away_from_zero({3, 4}), away_from_zero({})},
}};

REEL_EARLY const Op<> sign_op{{
    .name = "sign",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c) { map(c, [](T x) { return static_cast<T>((x > 0) - (x < 0)); }); },
    .gradient = flat,
    .samples = {away_from_zero({3, 4}), away_from_zero({})},
}};

REEL_EARLY const Op<> floor_op{{
    .name = "floor",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::floor(x); }); },
    .gradient = flat,
    .samples = {uniform({3, 4}, 0.1, 0.9), values({-40.5, -0.25, 0.75, 40.5}),
                uniform({17}, -1.9, -1.1), normal({0})},
}};

REEL_EARLY const Op<> round_op{{
    .name = "round",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::nearbyint(x); }); },
    .gradient = flat,
    .samples = {uniform({3, 4}, -0.4, 0.4), values({-40.25, -0.75, 0.75, 40.25}),
                uniform({17}, 0.6, 1.4), normal({0})},
}};

struct Bounds {
  double low, high;
};

// A bound converted to type T.
template <class T>
T bound(double x) {
  if constexpr (std::is_integral_v<T>)
    x = std::clamp<double>(x, std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
  return static_cast<T>(x);
}

REEL_EARLY const Op<Bounds> clamp_op{{
    .name = "clamp",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Bounds& b) -> Shape {
      const auto message = [&](const char* why) {
        return fmt::format("low is {} and high is {}; {}", b.low, b.high, why);
      };
      if (!(b.low <= b.high)) in.fail<ValueError>(message("low must not exceed high"));
      if (in.dtype(0) == i32 &&
          (b.low != std::nearbyint(b.low) || b.high != std::nearbyint(b.high)))
        in.fail<DTypeError>(message("the bounds of integers must be whole numbers"));
      return in[0];
    },
    .forward =
        []<class T>(Ctx<T> c, const Bounds& b) {
          const T low = bound<T>(b.low), high = bound<T>(b.high);
          map(c, [=](T x) { return x < low ? low : x > high ? high : x; });
        },
    .gradient = rule(
        [](Vjp& v, const Bounds& b) {
          v.add(0, [&] {
            const Tensor x = v.in().detach();
            return where(equal(clamp(x, b.low, b.high), x), v.g(), scalar(0, x.dtype()));
          });
        },
        keeps_inputs),
    .samples = {with_inputs(values({-3, -1.5, -0.5, 0.25, 0.75, 2, 40})).attr(Bounds{-1, 1}),
                with_inputs(normal({3, 4})).attr(Bounds{-40, 40}),
                with_inputs(away_from_zero({17})).attr(Bounds{0, INFINITY}),
                with_inputs(away_from_zero({})).attr(Bounds{-INFINITY, 0}),
                with_inputs(positive({2, 3})).attr(Bounds{-3, -2}),
                with_inputs(normal({0, 2})).attr(Bounds{1, 1})},
}};

}  // namespace

Tensor neg(const Tensor& x, Site site) { return neg_op({&x}, site); }
Tensor square(const Tensor& x, Site site) { return square_op({&x}, site); }
Tensor sqrt(const Tensor& x, Site site) { return sqrt_op({&x}, site); }
Tensor rsqrt(const Tensor& x, Site site) { return rsqrt_op({&x}, site); }
Tensor reciprocal(const Tensor& x, Site site) { return reciprocal_op({&x}, site); }
Tensor pow(const Tensor& x, double exponent, Site site) {
  return pow_scalar_op({&x}, {exponent}, site);
}
Tensor exp(const Tensor& x, Site site) { return exp_op({&x}, site); }
Tensor expm1(const Tensor& x, Site site) { return expm1_op({&x}, site); }
Tensor log(const Tensor& x, Site site) { return log_op({&x}, site); }
Tensor log1p(const Tensor& x, Site site) { return log1p_op({&x}, site); }
Tensor sin(const Tensor& x, Site site) { return sin_op({&x}, site); }
Tensor cos(const Tensor& x, Site site) { return cos_op({&x}, site); }
Tensor tan(const Tensor& x, Site site) { return tan_op({&x}, site); }
Tensor erf(const Tensor& x, Site site) { return erf_op({&x}, site); }
Tensor erfc(const Tensor& x, Site site) { return erfc_op({&x}, site); }
Tensor abs(const Tensor& x, Site site) { return abs_op({&x}, site); }
Tensor sign(const Tensor& x, Site site) { return sign_op({&x}, site); }
Tensor floor(const Tensor& x, Site site) { return floor_op({&x}, site); }
Tensor round(const Tensor& x, Site site) { return round_op({&x}, site); }
Tensor clamp(const Tensor& x, Arg<double> low, Arg<double> high, Site site) {
  return clamp_op({&x}, {low, high}, site);
}

}  // namespace reel

namespace reel::op::linked {
void unary() {}
}  // namespace reel::op::linked
