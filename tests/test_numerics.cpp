// Small inputs at which formulas that are right on paper fail numerically: values, gradients, and
// gradients through the graph of a gradient, where a fused op uses its specification.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/unroll.h>
#include <reel/reel.h>

using namespace reel;
using doctest::Contains;

namespace {

using Values = std::vector<double>;
using Function = std::function<Tensor(const Tensors&)>;

constexpr double infinity = std::numeric_limits<double>::infinity();
const double quiet_nan = std::numeric_limits<double>::quiet_NaN(), ln2 = std::log(2.0);

Tensor vector(const Values& numbers, DType dtype) {
  return tensor({static_cast<Index>(numbers.size())}, numbers, dtype);
}

bool close(double found, double expected, DType dtype) {
  if (std::isnan(expected)) return std::isnan(found);
  if (expected == 0 || std::isinf(expected)) return found == expected;
  return std::abs(found - expected) <= (dtype == f32 ? 3e-6 : 1e-13) * std::abs(expected);
}

void check_close(const Tensor& found, const Values& expected) {
  REQUIRE(found.size() == static_cast<Index>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CAPTURE(found.to_vector()[i]);
    CAPTURE(expected[i]);
    CHECK(close(found.to_vector()[i], expected[i], found.dtype()));
  }
}

// Checks f's value, and the gradient of its sum as a kernel and as a graph.
void check(const Function& f, const std::vector<Values>& inputs, const Values& value,
           const std::vector<Values>& gradients, std::initializer_list<DType> dtypes = {f32, f64}) {
  for (const DType dtype : dtypes) {
    CAPTURE(name_of(dtype));
    for (const bool graph : {false, true}) {
      CAPTURE(graph);
      Tape tape;
      Tensors x;
      for (const Values& input : inputs) x.push_back(tape.watch(vector(input, dtype)));
      const Tensor y = f(x);
      check_close(y, value);
      const std::vector<Tensor> found =
          tape.gradient(sum(y), {x.begin(), x.end()}, {.create_graph = graph});
      for (std::size_t i = 0; i < gradients.size(); ++i) {
        CAPTURE(i);
        check_close(found[i], gradients[i]);
      }
    }
  }
}

// The n-th derivative of f at x.
double derivative(Tensor (*f)(const Tensor&), double at, int order, DType dtype) {
  Tape tape;
  const Tensor x = tape.watch(scalar(at, dtype));
  Tensor y = f(x);
  for (int i = 0; i < order; ++i) y = tape.gradient(y, {x}, {.create_graph = true})[0];
  return y.item();
}

Tensor first(const Tensor& x) { return slice(x, 0, 0, 1); }

}  // namespace

TEST_CASE("numerics: a normaliser is not rounded at the size of the logits") {
  const Tensor class0 = tensor({}, {0}, i32);
  for (const double c : {0.0, 1e4, -1e4, 1e8, 1e15}) {
    CAPTURE(c);
    const std::vector<Values> x{{c, c}};
    check([](const Tensors& x) { return log_softmax(x[0]); }, x, {-ln2, -ln2}, {{0, 0}});
    check([](const Tensors& x) { return first(log_softmax(x[0])); }, x, {-ln2}, {{0.5, -0.5}});
    check([](const Tensors& x) { return first(softmax(x[0])); }, x, {0.5}, {{0.25, -0.25}});
    check([&](const Tensors& x) { return cross_entropy(x[0], class0); }, x, {ln2}, {{-0.5, 0.5}});
    check([&](const Tensors& x) { return cross_entropy(x[0], class0, {.label_smoothing = 0.1}); },
          x, {ln2}, {{-0.45, 0.45}});
    check([&](const Tensors& x) { return nll(log_softmax(x[0]), class0); }, x, {ln2},
          {{-0.5, 0.5}});
    const auto soft = [](const Tensors& x) {
      return cross_entropy(x[0], tensor({2}, {1, 0}, x[0].dtype()));
    };
    check(soft, x, {ln2}, {{-0.5, 0.5}});
    const auto divergence = [](const Tensors& x) {
      return kl_div(log_softmax(x[0]), tensor({2}, {0.5, 0.5}, x[0].dtype()));
    };
    check([&](const Tensors& x) { return divergence(x) + 1; }, x, {1}, {{0, 0}});
    check(
        [](const Tensors& x) {
          return logsumexp(reshape(x[0], {1, 2}), 1);
        },
        x, {c + ln2}, {{0.5, 0.5}});
    check(
        [](const Tensors& x) {
          return logsumexp(reshape(x[0], {2, 1}));
        },
        x, {c + ln2}, {{0.5, 0.5}});
  }
  // Near certainty: the logarithm of 1 + e^-20.
  check([&](const Tensors& x) { return cross_entropy(x[0], class0); }, {{20, 0}},
        {std::log1p(std::exp(-20.0))}, {});
  check([](const Tensors& x) { return first(log_softmax(x[0])); }, {{20, 0}},
        {-std::log1p(std::exp(-20.0))}, {});
  for (const DType dtype : {f32, f64}) {
    const double p = 1 / (1 + std::exp(20.0));
    Tape tape;
    const Tensor x = tape.watch(vector({20, 0}, dtype));
    check_close(tape.gradient(cross_entropy(x, class0), {x})[0], {-p, p});
    Tape soft_tape;
    const Tensor z = soft_tape.watch(vector({20, 0}, dtype));
    check_close(soft_tape.gradient(cross_entropy(z, vector({1, 0}, dtype)), {z})[0], {-p, p});
  }
}

TEST_CASE("numerics: a sum of exponentials has six digits at any length") {
  const Index n = 1 << 20;
  const Tensor x = full({n}, 0.1);
  CHECK(std::abs(cross_entropy(x, tensor({}, {3}, i32)).item() - 20 * ln2) < 1e-5);
  Tensor uneven = full({n}, -0.3);
  uneven.edit<float>()[7] = 0;
  const double expected = std::log(1 + (n - 1) * std::exp(-0.3));
  CHECK(close(cross_entropy(uneven, tensor({}, {7}, i32)).item(), expected, f32));
  CHECK(close(-log_softmax(uneven).at({7}), expected, f32));
}

TEST_CASE("numerics: factors of a gradient stay in the range of the result") {
  const auto share = [](const Tensors& x) {
    const Tensor e = exp(x[0]);
    return first(e / sum(e));
  };
  check(share, {{50, 50}}, {0.5}, {{0.25, -0.25}});
  check(share, {{-80, -80}}, {0.5}, {{0.25, -0.25}});
  const auto ratios = [](double b, std::initializer_list<DType> dtypes) {
    const std::vector<Values> inputs{{b}, {b}}, slopes{{1 / b}, {-1 / b}};
    check([](const Tensors& x) { return x[0] / x[1]; }, inputs, {1}, slopes, dtypes);
    check([](const Tensors& x) { return x[0] * reciprocal(x[1]); }, inputs, {1}, slopes, dtypes);
    check([](const Tensors& x) { return x[0] * pow(x[1], -1); }, inputs, {1}, slopes, dtypes);
    check([](const Tensors& x) { return x[0] * pow(x[1], scalar(-1, x[0].dtype())); }, inputs, {1},
          slopes, dtypes);
    const double r = std::sqrt(b);
    check([](const Tensors& x) { return x[0] * rsqrt(x[1]); }, {{r}, {b}}, {1},
          {{1 / r}, {-0.5 / b}}, dtypes);
    check([](const Tensors& x) { return x[0] * pow(x[1], -0.5); }, {{r}, {b}}, {1},
          {{1 / r}, {-0.5 / b}}, dtypes);
    check([](const Tensors& x) { return x[0] * pow(x[1], -1.5); }, {{r * r * r}, {r * r}}, {1}, {},
          {f64});
  };
  for (const double b : {1e-25, 1e25}) ratios(b, {f32, f64});
  for (const double b : {1e-200, 1e200}) ratios(b, {f64});
  check([](const Tensors& x) { return x[0] / x[1]; }, {{0}, {1e-23}}, {0}, {{1e23}, {0}});
  check([](const Tensors& x) { return x[0] / x[1]; }, {{1e30}, {1e20}}, {1e10},
        {{1e-20}, {-1e-10}});
  check([](const Tensors& x) { return square(x[0]); }, {{1e-25}}, {1e-50}, {{2e-25}}, {f64});
  check([](const Tensors& x) { return sqrt(x[0]); }, {{1e-30, 1e30, 0}}, {1e-15, 1e15, 0},
        {{0.5e15, 0.5e-15, infinity}});
}

TEST_CASE("numerics: slopes of powers at 0 and infinity") {
  const auto power = [](const Tensors& x) { return pow(x[0], x[1]); };
  check(power, {{0}, {-1}}, {infinity}, {{-infinity}, {-infinity}});
  check(power, {{0}, {-0.5}}, {infinity}, {{-infinity}, {-infinity}});
  check(power, {{0}, {2}}, {0}, {{0}, {0}});
  check(power, {{0}, {1}}, {0}, {{1}, {0}});
  check(power, {{0}, {0}}, {1}, {{0}, {0}});
  check(power, {{1e-40}, {0}}, {1}, {{0}, {std::log(1e-40)}}, {f64});
  check(power, {{0x1p-126}, {0}}, {1}, {{0}, {-126 * ln2}});
  check(power, {{infinity}, {-1}}, {0}, {{0}, {0}});
  check(power, {{-2}, {3}}, {-8}, {{12}});
  check([](const Tensors& x) { return pow(x[0], -2); }, {{0, -4}}, {infinity, 0.0625},
        {{-infinity, 0.03125}});
  check([](const Tensors& x) { return pow(x[0], 3); }, {{0, -2}}, {0, -8}, {{0, 12}});
  check([](const Tensors& x) { return pow(x[0], 0.5); }, {{4, -infinity}}, {2, infinity}, {});
  CHECK(std::signbit(pow(vector({-0.0}, f32), 3).item()));
  CHECK(pow(vector({-0.0}, f64), 0.5).item() == 0);
  CHECK_FALSE(std::signbit(pow(vector({-0.0}, f64), 0.5).item()));
}

TEST_CASE("numerics: powers have the special values of std::pow") {
  const float top = std::numeric_limits<float>::max(), least = 0x1p-149F;
  const Values special{0,   -0.0, 1,    -1,       0.5,       -0.5,      2,   -2,   3,     -3,
                       7.5, -7.5, 1e20, infinity, -infinity, quiet_nan, top, -top, least, 100};
  for (const double a : special)
    for (const double e : special) {
      CAPTURE(a);
      CAPTURE(e);
      // Subnormal operands and results are flushed to zero.
      const auto flushed = [](double number) {
        const auto x = static_cast<float>(number);
        return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.F, x) : x;
      };
      const double rounded =
          flushed(std::pow(static_cast<double>(flushed(a)), static_cast<double>(flushed(e))));
      const double tensor = pow(vector({a}, f32), vector({e}, f32)).item();
      const double number = pow(vector({a}, f32), e).item();
      CHECK(close(tensor, rounded, f32));
      if (e != 1)
        CHECK(close(number, rounded, f32));  // pow(x, 1) is x, even for a subnormal number
      if (!std::isnan(rounded)) {
        CHECK(std::signbit(tensor) == std::signbit(rounded));
        CHECK(std::signbit(number) == std::signbit(rounded));
      }
    }
}

TEST_CASE("numerics: inf - inf and 0 times inf where there is a limit") {
  const auto bce = [](double target) {
    return [target](const Tensors& x) {
      return bce_with_logits(x[0], full({1}, target, x[0].dtype()));
    };
  };
  const double tail = std::log1p(std::exp(-20.0)), share = 1 / (1 + std::exp(20.0));
  check(bce(1), {{infinity}}, {0}, {{0}});
  check(bce(0), {{-infinity}}, {0}, {{0}});
  check(bce(1), {{-infinity}}, {infinity}, {{-1}});
  check(bce(0), {{infinity}}, {infinity}, {{1}});
  check(bce(0.5), {{infinity}}, {infinity}, {{0.5}});
  check(bce(0), {{-20}}, {tail}, {{share}});
  check(bce(1), {{20}}, {tail}, {{-share}});
  const auto log_sum = [](const Tensors& x) { return logsumexp(x[0]); };
  check(log_sum, {{-infinity, -infinity}}, {-infinity}, {{0, 0}});
  check(log_sum, {{-infinity, 3}}, {3}, {{0, 1}});
  check(log_sum, {{infinity, 3}}, {infinity}, {});
  check([](const Tensors& x) { return softmax(x[0]); }, {{-infinity, 3}}, {0, 1}, {{0, 0}});
  check([](const Tensors& x) { return softmax(x[0]); }, {{infinity, 3}}, {1, 0}, {{0, 0}});
  check([](const Tensors& x) { return first(log_softmax(x[0])); }, {{3, -infinity}}, {0}, {{0, 0}});
  check([](const Tensors& x) { return cross_entropy(x[0], tensor({}, {0}, i32)); }, {{infinity, 3}},
        {0}, {{0, 0}});
  check([](const Tensors& x) { return silu(x[0]); }, {{-infinity}}, {0}, {});
  check([](const Tensors& x) { return gelu(x[0]); }, {{-infinity}}, {0}, {});
  for (const DType dtype : {f32, f64}) {
    Tape tape;
    const Tensor x = tape.watch(vector({-infinity, infinity}, dtype));
    check_close(tape.gradient(sum(silu(x)), {x}, {.keep = true})[0], {0, 1});
    check_close(tape.gradient(sum(gelu(x)), {x}, {.keep = true})[0], {0, 1});
    check_close(tape.gradient(logsumexp(x), {x})[0], {0, 1});
  }
  check_close(1 / abs(vector({-0.0}, f32)), {infinity});
  check_close(1 / abs(vector({-0.0}, f64)), {infinity});
}

TEST_CASE("numerics: an element of weight 0 may have any value") {
  // A forbidden class of weight 0: the same as with the other two classes only, ln 2 each.
  const auto smoothed = [](bool soft) {
    return [soft](const Tensors& x) {
      const DType dtype = x[0].dtype();
      const Tensor c = tensor({3}, {1, 1, 0}, dtype);
      const Tensor t = soft ? tensor({3}, {1, 0, 0}, dtype) : tensor({}, {0}, i32);
      return cross_entropy(x[0], t, {.class_weights = c, .label_smoothing = 0.1});
    };
  };
  const double mass = 0.9 + 0.2 / 3;
  for (const bool soft : {false, true})
    check(smoothed(soft), {{2, 2, -infinity}}, {mass * ln2},
          {{mass / 2 - 0.9 - 0.1 / 3, mass / 2 - 0.1 / 3, 0}});
  check(
      [](const Tensors& x) {
        return nll(x[0], tensor({}, {0}, i32),
                   {.class_weights = tensor({3}, {1, 1, 0}, x[0].dtype()), .label_smoothing = 0.1});
      },
      {{-ln2, -ln2, -infinity}}, {mass * ln2}, {{-0.9 - 0.1 / 3, -0.1 / 3, 0}});

  // Ignored positions, to first and second order.
  for (const double anything : {quiet_nan, infinity, -infinity})
    for (const DType dtype : {f32, f64}) {
      const Tensor good = tensor({2, 2}, {0.5, -1, 0, 0}, dtype), w = tensor({2}, {1, 0}, dtype);
      const Tensor bad = tensor({2, 2}, {0.5, -1, anything, anything}, dtype);
      const Tensor t = tensor({2, 2}, {0.25, 0.75, anything, anything}, dtype);
      const Tensor good_t = tensor({2, 2}, {0.25, 0.75, 0, 0}, dtype);
      const Tensor classes = tensor({2}, {1, 0}, i32);
      using Loss = std::function<Tensor(const Tensor&, const Tensor&)>;
      const std::vector<Loss> losses{
          [&](const Tensor& x, const Tensor&) { return cross_entropy(x, classes, w); },
          [&](const Tensor& x, const Tensor&) { return nll(x, classes, {.weights = w}); },
          [&](const Tensor& x, const Tensor& t) { return cross_entropy(x, t, w); },
          [&](const Tensor& x, const Tensor& t) { return mse(x, t, w); },
          [&](const Tensor& x, const Tensor& t) { return l1(x, t, w); },
          [&](const Tensor& x, const Tensor& t) { return huber(x, t, 0.5, w); },
          [&](const Tensor& x, const Tensor& t) { return pinball(x, t, 0.3, w); },
          [&](const Tensor& x, const Tensor& t) { return bce_with_logits(x, t, w); },
          [&](const Tensor& x, const Tensor& t) { return kl_div(x, t, w); },
      };
      const auto results = [](const Loss& loss, const Tensor& x, const Tensor& t) {
        Values numbers;
        for (const bool graph : {false, true}) {
          Tape tape;
          const Tensor watched = tape.watch(x);
          const Tensor value = loss(watched, t);
          const Tensor g = tape.gradient(value, {watched}, {.create_graph = graph})[0];
          numbers.push_back(value.item());
          for (const double n : g.to_vector()) numbers.push_back(n);
          if (!graph || g.trace().generation == 0) continue;
          for (const double n : tape.gradient(sum(square(g)), {watched})[0].to_vector())
            numbers.push_back(n);
        }
        return numbers;
      };
      for (std::size_t i = 0; i < losses.size(); ++i) {
        CAPTURE(i);
        CAPTURE(anything);
        CHECK(results(losses[i], bad, t) == results(losses[i], good, good_t));
      }
    }
}

TEST_CASE("numerics: slopes are computed from inputs where outputs saturate") {
  const auto sech_square = [](double x) { return 1 / (std::cosh(x) * std::cosh(x)); };
  for (const DType dtype : {f32, f64})
    for (const double x : {-80.0, -20.0, -12.0, -3.0, 3.0, 12.0, 20.0, 80.0}) {
      CAPTURE(name_of(dtype));
      CAPTURE(x);
      const auto slope = [&](Tensor (*f)(const Tensor&), int order = 1) {
        return derivative(f, x, order, dtype);
      };
      const double right = 1 / (1 + std::exp(-x)), left = 1 / (1 + std::exp(x));
      const auto tanh_of = [](const Tensor& x) { return tanh(x); };
      const auto sigmoid_of = [](const Tensor& x) { return sigmoid(x); };
      const auto softplus_of = [](const Tensor& x) { return softplus(x); };
      const auto log_sigmoid_of = [](const Tensor& x) { return log_sigmoid(x); };
      const auto silu_of = [](const Tensor& x) { return silu(x); };
      const auto expm1_of = [](const Tensor& x) { return expm1(x); };
      const auto elu_of = [](const Tensor& x) { return elu(x); };
      if (std::abs(x) < 40) {
        CHECK(close(slope(tanh_of), sech_square(x), dtype));
        CHECK(close(slope(tanh_of, 2), -2 * std::tanh(x) * sech_square(x), dtype));
      }
      CHECK(close(slope(sigmoid_of), right * left, dtype));
      CHECK(close(slope(sigmoid_of, 2), right * left * std::tanh(-x / 2), dtype));
      CHECK(close(slope(softplus_of), right, dtype));
      CHECK(close(slope(softplus_of, 2), right * left, dtype));
      CHECK(close(slope(log_sigmoid_of), left, dtype));
      CHECK(close(slope(silu_of), right + x * right * left, dtype));
      CHECK(close(slope(expm1_of), std::exp(x), dtype));
      CHECK(close(slope(elu_of), x > 0 ? 1 : std::exp(x), dtype));
      CHECK(close(slope(elu_of, 2), x > 0 ? 0 : std::exp(x), dtype));
      CHECK(close(softplus(scalar(x, dtype)).item(),
                  x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)), dtype));
    }
  // The tail of the normal distribution, as kernel and as specification.
  for (const double x : {-5.0, -3.0}) {
    const double cdf = std::erfc(-x / std::sqrt(2.0)) / 2;
    const double pdf = std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0));
    check([](const Tensors& x) { return gelu(x[0]); }, {{x}}, {x * cdf}, {{cdf + x * pdf}}, {f64});
  }
}

TEST_CASE("numerics: an interpolation is exact at its ends") {
  for (const DType dtype : {f32, f64}) {
    const auto at = [&](double a, double b, double w) {
      return lerp(scalar(a, dtype), scalar(b, dtype), w).item();
    };
    CHECK(at(1e8, 1, 1) == 1);
    CHECK(at(1, 1e8, 0) == 1);
    CHECK(at(-1e8, 1, 1) == 1);
    CHECK(at(3, infinity, 0) == 3);
    CHECK(at(quiet_nan, 3, 1) == 3);
    CHECK(at(0.1, 0.1, 0.3) == scalar(0.1, dtype).item());
    CHECK(at(2, 4, 2) == 6);
  }
  CHECK(lerp(scalar(-3e38), scalar(3e38), 0.5).item() == 0);
}

TEST_CASE("numerics: an interpolation to infinity, and its slope where the distance is infinite") {
  for (const DType dtype : {f32, f64}) {
    const auto at = [&](double a, double b, double w) {
      return lerp(scalar(a, dtype), scalar(b, dtype), w).item();
    };
    for (const double w : {0.25, 0.5, 0.75}) {
      for (const double a : {0.0, 1.0, -1.0, infinity}) {
        CHECK(at(a, infinity, w) == infinity);
        CHECK(at(infinity, a, w) == infinity);
        CHECK(at(-a, -infinity, w) == -infinity);
      }
      CHECK(std::isnan(at(-infinity, infinity, w)));
    }
    const double large = dtype == f32 ? 3e38 : 1.5e308;
    for (const bool create_graph : {false, true}) {
      Tape tape;
      const Tensor w = tape.watch(full({2}, 0.25, dtype));
      const Tensor a = concat({full({1}, -large, dtype), full({1}, 1, dtype)}, 0);
      const Tensor b = concat({full({1}, large, dtype), full({1}, 3, dtype)}, 0);
      const Tensor y = sum(lerp(a, b, w) * 1e-10);
      const Values g = tape.gradient(y, {w}, {.create_graph = create_graph})[0].to_vector();
      CHECK(g[0] == doctest::Approx(2e-10 * large).epsilon(1e-6));
      CHECK(g[1] == doctest::Approx(2e-10).epsilon(1e-6));
    }
  }
}

TEST_CASE("numerics: errors quote what was written") {
  const Tensor x = zeros({7});
  CHECK_THROWS_WITH_AS(slice(x, 0, -9, 2), Contains("elements -9 to 2 of axis 0 do not exist"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(slice(x, 0, -1, 2), Contains("elements -1 to 2 of axis 0 do not exist"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(reshape(zeros({2, 3}), {4, -1}),
                       Contains("reshape: 6 elements cannot take shape [4, -1]; x is f32 [2, 3] ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(reshape(zeros({0, 3}), {-1, 0}),
                       Contains("cannot take shape [-1, 0]: with a size of 0 the size for -1 is"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(reshape(x, {-1, -7}), Contains("cannot take shape [-1, -7]: only one size"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(reshape(x, {-1, 1, 1, 1, 1}),
                       Contains("cannot take shape [-1, 1, 1, 1, 1]: there are at most 4 axes"),
                       ShapeError);
  const Tensor m = zeros({2, 3});
  CHECK_THROWS_WITH_AS(sum(m, {1, -1}),
                       Contains("sum: axes (1, -1) name an axis of a tensor of rank 2 twice ("),
                       ShapeError);
  CHECK_THROWS_AS(logsumexp(m, {0, 0}), ShapeError);
  CHECK_THROWS_AS(all(m, {0, 1, 0}), ShapeError);
  CHECK_THROWS_AS(reel::std(m, {-2, 0}), ShapeError);
  CHECK_THROWS_WITH_AS(stack({}), Contains("stack: inputs is empty"), ValueError);
  CHECK_THROWS_WITH_AS(concat({}, 0), Contains("concat: inputs is empty"), ValueError);
  const Params params(1);
  const nn::Unroll<nn::LstmCell> layer(params, 3, 4);
  CHECK_THROWS_WITH_AS(layer(zeros({0, 2, 3})),
                       Contains("Unroll: the sequence has no steps; x is f32 [0, 2, 3] ("),
                       ShapeError);
}

TEST_CASE("numerics: losses of a sum that a float cannot hold") {
  const Tensor x = tensor({1000}, Values(1000, 0)), far = full({1}, 1e20);
  const Tensor y = concat({slice(x, 0, 0, 999), far}, 0);
  CHECK(close(mse(y, x).item(), 1e37, f32));
  CHECK(close(huber(y, x, 1e19).item(), 9.5e35, f32));
}

TEST_CASE("numerics: a normalised row of any range") {
  const auto check = [](const Function& f, const Tensor& x, double epsilon, const Values& values,
                        double slope) {
    CAPTURE(x.str());
    for (const bool create_graph : {false, true}) {
      Tape tape;
      const Tensor watched = tape.watch(x);
      const Tensor gain = ones({x.size(0)}, x.dtype()), bias = zeros({x.size(0)}, x.dtype());
      const Tensor y = f({watched, gain, bias, scalar(epsilon, f64)});
      for (std::size_t i = 0; i < values.size(); ++i)
        CHECK(y.to_vector()[i] == doctest::Approx(values[i]).epsilon(2e-6));
      const Tensor weights = concat({ones({1}, x.dtype()), zeros({x.size(0) - 1}, x.dtype())}, 0);
      const Tensor g =
          tape.gradient(sum(y * weights), {watched}, {.create_graph = create_graph})[0];
      CHECK(g.to_vector()[0] == doctest::Approx(slope).epsilon(4e-6));
    }
  };
  const Function rms = [](const Tensors& in) { return rms_norm(in[0], in[1], in[3].item()); };
  const Function layer = [](const Tensors& in) {
    return layer_norm(in[0], in[1], in[2], in[3].item());
  };
  const auto row = [](Values x, DType dtype) {
    return tensor({static_cast<Index>(x.size())}, std::span<const double>(x), f64).to(dtype);
  };
  // With two numbers a, b: y = a √2 / √(a² + b²), dy/da = √2 b² / (a² + b²)^1.5.
  for (const auto& [size, dtype] : {std::pair{3e38, f32},
                                    {1e30, f32},
                                    {1e-30, f32},
                                    {1e-37, f32},
                                    {1.5e308, f64},
                                    {1e200, f64},
                                    {1e-140, f64},
                                    {1e-200, f64},
                                    {1e-300, f64}}) {
    const double half = size / 2, root = std::sqrt(2 / 1.25);
    const double slope = 0.25 / 1.25 * std::sqrt(2 / 1.25) / size;
    check(rms, row({size, half}, dtype), 0, {root, root / 2},
          slope < 1.2e-38 && dtype == f32 ? 0 : slope);
    // With three numbers a, 0, -a: y = √1.5 (1, 0, -1), dy/da = √1.5 / (6 a).
    const double side = std::sqrt(1.5);
    const double along = side / 6 / size;
    check(layer, row({size, 0, -size}, dtype), 0, {side, 0, -side},
          along < 1.2e-38 && dtype == f32 ? 0 : along);
  }
  // Where epsilon is larger than the squares.
  check(rms, row({1e-200, 1e-200}, f64), 1e-300, {1e-50, 1e-50}, 1e150);
  check(rms, row({1e-30, 1e-30}, f32), 1e-50, {1e-5, 1e-5}, 1e25);
  check(layer, row({1e-200, -1e-200, 1e-200, -1e-200}, f64), 1e-300, {1e-50, -1e-50}, 0.75e150);
  check(layer, row({1e20, 1e20}, f32), 1e-12, {0, 0}, 0.5e6);
  // Not a number stays so, and other rows do not change.
  const Tensor odd = layer_norm(tensor({2, 2}, {1, infinity, 1, 3}), ones({2}), zeros({2}), 0);
  CHECK(std::isnan(odd.to_vector()[1]));
  CHECK(odd.to_vector()[3] == 1);
}
