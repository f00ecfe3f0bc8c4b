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

using detail::map;
using detail::map_gradient;
using detail::times_slope;

// g (s sech(s x))²: with s = 1 the gradient of tanh, with 1/2 that of sigmoid. Computed from x, it
// is accurate even where they have saturated.
struct Steepness {
  double s;
};

Tensor times_sech_square(const Tensor& g, const Tensor& x, double s);

REEL_EARLY const Op<Steepness> times_sech_square_op{{
    .name = "times_sech_square",
    .arguments = {"g", "x"},
    .shape = [](const Arguments& in) -> Shape {
      if (in[0] != in[1]) in.fail("g and x must have one shape");
      return in[0];
    },
    .forward =
        []<Real T>(Ctx<T> c, const Steepness& steepness) {
          const T s = static_cast<T>(steepness.s), square = s * s;
          const T *g = c.in(0).data(), *x = c.in(1).data();
          T* y = c.out().data();
          const Index n = static_cast<Index>(c.out().size());
          for (Index i = 0; i < n; ++i) y[i] = g[i] * (square * kernels::vsech_square(s * x[i]));
        },
    .gradient = rule(
        [](Vjp& v, const Steepness& steepness) {
          const double s = steepness.s;
          v.add(0, [&] { return times_sech_square(v.g(), v.in(1), s); });
          v.add(1, [&] { return v.g() * v.out() * (tanh(v.in(1) * s) * (-2 * s)); });
        },
        keeps_all),
    .samples = {with_inputs(normal({3, 4}), normal({3, 4})).attr(Steepness{1}),
                with_inputs(normal({17}), normal({17})).attr(Steepness{0.5}),
                with_inputs(values({1, 2, 3}), values({-20, 0, 20})).attr(Steepness{1}),
                with_inputs(normal({0}), normal({0})).attr(Steepness{1})},
}};

Tensor times_sech_square(const Tensor& g, const Tensor& x, double s) {
  return times_sech_square_op({&g, &x}, {s}, {});
}

REEL_EARLY const Op<> tanh_op{{
    .name = "tanh",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vtanh(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return times_sech_square(v.g(), v.in(), 1); }); },
                     keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-20, 0, 20})},
}};

REEL_EARLY const Op<> sigmoid_op{{
    .name = "sigmoid",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vsigmoid(x); }); },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return times_sech_square(v.g(), v.in(), 0.5); }); },
             keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40})},
}};

REEL_EARLY const Op<> log_sigmoid_op{{
    .name = "log_sigmoid",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return -kernels::vsoftplus(-x); }); },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return v.g() * sigmoid(-v.in()); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-800, -40, 0, 40, 800}), normal({0})},
}};

REEL_EARLY const Op<> softplus_op{{
    .name = "softplus",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vsoftplus(x); }); },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return v.g() * sigmoid(v.in()); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-800, -40, 0, 40, 800}), normal({0})},
}};

REEL_EARLY const Op<> relu_op{{
    .name = "relu",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<class T>(Ctx<T> c) { map(c, [](T x) { return x < 0 ? T(0) : x; }); },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] {
            const Tensor zero = scalar(0, v.g().dtype());
            return where(v.out().detach() > zero, v.g(), zero);
          });
        },
        keeps_output),
    .samples = {away_from_zero({3, 4}), away_from_zero({17}), away_from_zero({})},
}};

struct Slope {
  double below;  // zero
};

REEL_EARLY const Op<Slope> leaky_relu_op{{
    .name = "leaky_relu",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Slope& slope) {
          map(c, [s = static_cast<T>(slope.below)](T x) { return x > 0 ? x : s * x; });
        },
    .gradient = rule(
        [](Vjp& v, const Slope& slope) {
          v.add(0, [&] {
            const Tensor x = v.in().detach();
            const Tensor one = scalar(1, x.dtype()), below = scalar(slope.below, x.dtype());
            return times_slope(v.g(), where(x > 0, one, below));
          });
        },
        keeps_inputs),
    .samples = {with_inputs(away_from_zero({3, 4})).attr(Slope{0.01}),
                with_inputs(away_from_zero({17})).attr(Slope{-0.5}),
                with_inputs(values({-40, 40})).attr(Slope{0.2}),
                with_inputs(normal({0})).attr(Slope{0.1})},
}};

struct Alpha {
  double value;
};

REEL_EARLY const Op<Alpha> elu_op{{
    .name = "elu",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Alpha& alpha) {
          map(c, [a = static_cast<T>(alpha.value)](T x) {
            return x > 0 ? x : a * kernels::vexpm1(x);
          });
        },
    .gradient = rule(
        [](Vjp& v, const Alpha& alpha) {
          v.add(0, [&] {
            const Tensor one = scalar(1, v.g().dtype()), positive = v.in().detach() > 0;
            const Tensor below =
                exp(masked_fill(v.in(), positive, 0));  // masked elsewhere, to avoid overflow
            return times_slope(v.g(), where(positive, one, below * alpha.value));
          });
        },
        keeps_inputs),
    .samples = {with_inputs(away_from_zero({3, 4})).attr(Alpha{1}),
                with_inputs(away_from_zero({17})).attr(Alpha{-0.5}),
                with_inputs(values({-40, 40})).attr(Alpha{1.5}),
                with_inputs(normal({0})).attr(Alpha{1})},
}};

// x, or the lowest finite number for -∞: then x times 0 is 0, the limit.
template <class T>
[[gnu::always_inline]] inline T finite(T x) {
  constexpr T lowest = std::numeric_limits<T>::lowest();
  return x < lowest ? lowest : x;
}

// Below this, Φ(x) may be subnormal where xΦ(x) is not; the wider type has the exponents for both.
template <class T>
constexpr T gelu_tail = sizeof(T) == 4 ? -12 : -36;
template <class T>
using Wider = std::conditional_t<sizeof(T) == 4, double, long double>;

// The standard normal cumulative distribution function, accurate in its lower tail.
template <class T>
T normal_cdf(T x) {
  return std::erfc(-x / std::numbers::sqrt2_v<T>) / 2;
}

// x Φ(x)
template <class T>
T times_normal_cdf(T x) {
  return finite(x) * normal_cdf(x);
}

// Φ(x) + x φ(x)
template <class T>
T gelu_slope(T x) {
  constexpr T peak = std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
  const T most = x > std::numeric_limits<T>::max() ? std::numeric_limits<T>::max() : finite(x);
  if constexpr (Real<T>)
    return normal_cdf(x) + most * (peak * kernels::vexp(-x * x / 2));
  else
    return normal_cdf(x) + most * (peak * std::exp(-x * x / 2));
}

REEL_EARLY const Op<> gelu_op{{
    .name = "gelu",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c) {
          map(c, [](T x) {
            return x < gelu_tail<T> ? static_cast<T>(times_normal_cdf(Wider<T>(x)))
                                    : times_normal_cdf(x);
          });
        },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c) {
          map_gradient(c, [](T x) {
            return x < gelu_tail<T> ? static_cast<T>(gelu_slope(Wider<T>(x))) : gelu_slope(x);
          });
        },
        [](std::span<const Tensor> in) -> Tensors {
          // Beyond the bounds Φ is 0 or 1, and so it is at an infinity, which no slope multiplies.
          return {in[0] * (0.5 * erfc(clamp(in[0], -100.0, 100.0) / -std::numbers::sqrt2))};
        },
        keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40}), normal({0})},
}};

// The sigmoid of x as two factors: below -80 it may be subnormal where x sigmoid(x) is not. There
// it is eˣ = e^(x + 16) e^-16.
template <class T>
struct SigmoidFactors {
  T sigmoid, scale;
};
template <class T>
[[gnu::always_inline]] inline SigmoidFactors<T> sigmoid_factors(T x) {
  constexpr T shift = 16, unit = T(1.12535174719259114514e-7L);  // e^-16
  const bool tail = x < T(-80);
  return {kernels::vsigmoid(tail ? x + shift : x), tail ? unit : T(1)};
}

REEL_EARLY const Op<> silu_op{{
    .name = "silu",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c) {
          map(c, [](T x) {
            const auto [sigmoid, scale] = sigmoid_factors(x);
            return finite(x) * sigmoid * scale;
          });
        },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c) {
          map_gradient(c, [](T x) {
            constexpr T most = std::numeric_limits<T>::max();
            const auto [sigmoid, scale] = sigmoid_factors(x);
            const T bounded = x > most ? most : finite(x);
            return sigmoid * (1 + bounded * kernels::vsigmoid(-x)) * scale;
          });
        },
        [](std::span<const Tensor> in) -> Tensors {
          // As for gelu; the sigmoid is 0 or 1 beyond the bounds.
          return {in[0] * sigmoid(clamp(in[0], -1000.0, 1000.0))};
        },
        keeps_inputs),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40}), normal({0})},
}};

}  // namespace

Tensor tanh(const Tensor& x, Site site) { return tanh_op({&x}, site); }
Tensor sigmoid(const Tensor& x, Site site) { return sigmoid_op({&x}, site); }
Tensor log_sigmoid(const Tensor& x, Site site) { return log_sigmoid_op({&x}, site); }
Tensor softplus(const Tensor& x, Site site) { return softplus_op({&x}, site); }
Tensor relu(const Tensor& x, Site site) { return relu_op({&x}, site); }
namespace {

void check_finite(const char* op, const char* setting, double value, Site site) {
  if (!std::isfinite(value))
    throw ValueError(fmt::format("{}: {} must be finite, not {}", op, setting, value), site);
}

}  // namespace

Tensor leaky_relu(const Tensor& x, Arg<double> slope, Site site) {
  check_finite("leaky_relu", "the slope", slope, site);
  return leaky_relu_op({&x}, {slope}, site);
}
Tensor elu(const Tensor& x, Arg<double> alpha, Site site) {
  check_finite("elu", "alpha", alpha, site);
  return elu_op({&x}, {alpha}, site);
}
Tensor gelu(const Tensor& x, Site site) { return gelu_op({&x}, site); }
Tensor silu(const Tensor& x, Site site) { return silu_op({&x}, site); }

}  // namespace reel

namespace reel::op::linked {
void activation() {}
}  // namespace reel::op::linked
