#include <cmath>
#include <numbers>

#include "references.h"

namespace reel::testing {
namespace {

struct Number {
  double value;
};
struct Bounds {
  double low, high;
};
struct Mask {
  Rng::State rng;
  double rate;
};

// y = f(a, b) or f(a, b, c), broadcast.
template <class F>
Reference broadcast_reference(F f) {
  Reference result = reference([f](const Arrays& in) -> Arrays {
    Shape shape = in[0].shape;
    for (const Array& x : in) shape = broadcast(shape, x.shape);
    Array y(shape);
    each_place(shape, [&](const Place& place, Index i) {
      const auto at = [&](std::size_t k) {
        return in[k][broadcast_position(in[k].shape, shape, place)];
      };
      if constexpr (std::is_invocable_v<F, double, double>)
        y[i] = f(at(0), at(1));
      else
        y[i] = f(at(0), at(1), at(2));
    });
    return {y};
  });
  result.elementwise = true;
  return result;
}

double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
double sigmoid(double x) {
  return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
// a · b where a goes to 0 faster than b to infinity.
double vanishing(double a, double b) { return a == 0 ? 0 : a * b; }

void add_powers(References& table) {
  const auto add = [&](const char* name, auto f) { table[name] = elementwise_reference(f); };
  add("neg", [](double x) { return -x; });
  add("square", [](double x) { return x * x; });
  add("sqrt", [](double x) { return std::sqrt(x); });
  add("rsqrt", [](double x) { return 1 / std::sqrt(x); });
  add("reciprocal", [](double x) { return 1 / x; });
  add("exp", [](double x) { return std::exp(x); });
  add("expm1", [](double x) { return std::expm1(x); });
  add("log", [](double x) { return std::log(x); });
  add("log1p", [](double x) { return std::log1p(x); });
  add("sin", [](double x) { return std::sin(x); });
  add("cos", [](double x) { return std::cos(x); });
  add("tan", [](double x) { return std::tan(x); });
  add("erf", [](double x) { return std::erf(x); });
  add("erfc", [](double x) { return std::erfc(x); });
  add("abs", [](double x) { return std::abs(x); });
  add("sign", [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; });
  add("floor", [](double x) { return std::floor(x); });
  table["round"] = elementwise_reference(
      [](double x) { return std::isfinite(x) ? x - std::remainder(x, 1.0) : x; });
  table["pow_scalar"] = elementwise_reference<Number>(
      [](double x, const Number& exponent) { return std::pow(x, exponent.value); });
  table["clamp"] = elementwise_reference<Bounds>([](double x, const Bounds& b) {
    return std::isnan(x) ? x : std::fmin(std::fmax(x, b.low), b.high);
  });
  table["dropout"] = reference<Mask>([](const Arrays& in, const Mask& mask) -> Arrays {
    Array y(in[0].shape);
    Rng rng(mask.rng);
    std::array<std::uint32_t, 4> bits{};
    for (Index i = 0; i < y.size(); ++i) {
      if (i % 4 == 0) bits = rng.next();
      const bool dropped = bits[static_cast<std::size_t>(i % 4)] < mask.rate * 0x1p32;
      y[i] = dropped ? 0 : in[0][i] / (1 - mask.rate);
    }
    return {y};
  });
}

void add_activations(References& table) {
  const auto add = [&](const char* name, auto f) { table[name] = elementwise_reference(f); };
  add("tanh", [](double x) { return std::tanh(x); });
  add("sigmoid", sigmoid);
  add("log_sigmoid", [](double x) { return -softplus(-x); });
  add("softplus", softplus);
  add("relu", [](double x) { return x < 0 ? 0 : x; });
  add("gelu", [](double x) { return vanishing(std::erfc(-x / std::numbers::sqrt2) / 2, x); });
  add("silu", [](double x) { return vanishing(sigmoid(x), x); });
  table["times_sech_square"] = reference<Number>([](const Arrays& in, const Number& s) -> Arrays {
    Array y = in[0];
    for (Index i = 0; i < y.size(); ++i) {
      const double slope = s.value / std::cosh(s.value * in[1][i]);
      y[i] *= slope * slope;
    }
    return {y};
  });
  table["leaky_relu"] = elementwise_reference<Number>(
      [](double x, const Number& slope) { return x > 0 ? x : slope.value * x; });
  table["elu"] = elementwise_reference<Number>(
      [](double x, const Number& alpha) { return x > 0 ? x : alpha.value * std::expm1(x); });
}

void add_operands(References& table) {
  const auto add = [&](const char* name, auto f) { table[name] = broadcast_reference(f); };
  add("add", [](double a, double b) { return a + b; });
  add("sub", [](double a, double b) { return a - b; });
  add("mul", [](double a, double b) { return a * b; });
  add("div", [](double a, double b) { return a / b; });
  add("pow", [](double a, double b) { return std::pow(a, b); });
  table["pow"].slopes = false;  // with respect to b it is NaN where a < 0
  add("times_slope", [](double g, double slope) { return slope == 0 ? 0 : g * slope; });
  add("lerp", [](double a, double b, double w) { return a + w * (b - a); });
  table["lerp"].elementwise = table["lerp"].special = false;  // other formulas differ there
  const auto either = [](double a, double b, double y) {
    return std::isnan(a) || std::isnan(b) ? NAN : y;
  };
  add("maximum", [either](double a, double b) { return either(a, b, std::fmax(a, b)); });
  add("minimum", [either](double a, double b) { return either(a, b, std::fmin(a, b)); });
  add("where", [](double condition, double a, double b) { return condition != 0 ? a : b; });
  add("less", [](double a, double b) -> double { return a < b; });
  add("less_equal", [](double a, double b) -> double { return a <= b; });
  add("greater", [](double a, double b) -> double { return a > b; });
  add("greater_equal", [](double a, double b) -> double { return a >= b; });
  add("equal", [](double a, double b) -> double { return a == b; });
  add("not_equal", [](double a, double b) -> double { return a != b; });
  add("logical_and", [](double a, double b) -> double { return a != 0 && b != 0; });
  add("logical_or", [](double a, double b) -> double { return a != 0 || b != 0; });
  add("logical_xor", [](double a, double b) -> double { return (a != 0) != (b != 0); });
  table["logical_not"] = elementwise_reference([](double x) -> double { return x == 0; });
}

}  // namespace

void add_elementwise_references(References& table) {
  add_powers(table);
  add_activations(table);
  add_operands(table);
}

}  // namespace reel::testing
