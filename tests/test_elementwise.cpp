// Values of the elementwise ops at points worked out by hand, and NumPy's conventions.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

using namespace reel;
using doctest::Contains;

namespace {

Tensor vector(std::initializer_list<double> numbers, DType dtype = f64) {
  return tensor({static_cast<Index>(numbers.size())}, numbers, dtype);
}

void check_close(const Tensor& found, std::initializer_list<double> expected,
                 double epsilon = 1e-14) {
  REQUIRE(found.size() == static_cast<Index>(expected.size()));
  std::size_t i = 0;
  for (const double e : expected)
    CHECK(found.to_vector()[i++] == doctest::Approx(e).epsilon(epsilon));
}

void check_equal(const Tensor& found, std::initializer_list<double> expected) {
  CHECK(found.to_vector() == std::vector<double>(expected));
}

// The gradient of the sum of f at x.
Tensor slope(Tensor (*f)(const Tensor&), const Tensor& at) {
  Tape tape;
  const Tensor x = tape.watch(at);
  return tape.gradient(sum(f(x)), {x})[0];
}

}  // namespace

TEST_CASE("values of the elementary functions") {
  const double ln2 = std::log(2.0), pi = std::acos(-1.0);
  check_close(expm1(vector({0, ln2, 1e-12})), {0, 1, 1e-12});
  check_close(log1p(vector({0, 1, 1e-12})), {0, ln2, 1e-12});
  check_close(rsqrt(vector({4, 0.25})), {0.5, 2});
  check_close(reciprocal(vector({4, -0.5})), {0.25, -2});
  check_close(sin(vector({0, pi / 6, -pi / 2})), {0, 0.5, -1});
  check_close(cos(vector({0, pi / 3})), {1, 0.5});
  check_close(tan(vector({0, pi / 4})), {0, 1});
  check_close(erf(vector({0, 0.5, -1})), {0, 0.52049987781304654, -0.84270079294971487});
  check_close(pow(vector({2, -2, 9}), 3), {8, -8, 729});
  check_close(pow(vector({4, 9}), -0.5), {0.5, 1.0 / 3});
  check_close(pow(vector({2, 4, -2}), vector({-1, 0.5, 3})), {0.5, 2, -8});
  check_close(lerp(vector({0, 10}), vector({10, 20}), 0.25), {2.5, 12.5});
  check_close(lerp(vector({0, 10}), scalar(20, f64), vector({0.5, 1})), {10, 20});
  CHECK(lerp(zeros({2}), ones({2}), 0.5).dtype() == f32);
}

TEST_CASE("values of the activations, without overflow") {
  check_close(log_sigmoid(vector({0, -1000, 1000})), {-std::log(2.0), -1000, 0});
  check_close(softplus(vector({0, -1000, 1000})), {std::log(2.0), 0, 1000});
  CHECK(log_sigmoid(vector({40})).item() == doctest::Approx(-4.248354255291589e-18).epsilon(1e-14));
  check_close(leaky_relu(vector({-2, 0, 3}), 0.1), {-0.2, 0, 3});
  check_close(elu(vector({-std::log(2.0), 0, 3}), 2), {-1, 0, 3});
  check_close(gelu(vector({0, 1, -1})), {0, 0.84134474606854293, -0.15865525393145705});
  CHECK(gelu(vector({-10})).item() == doctest::Approx(-7.619853024160525e-23).epsilon(1e-12));
  check_close(silu(vector({0, 1, -1})), {0, 0.7310585786300049, -0.2689414213699951});
  check_equal(gelu(vector({-1000, 1000}, f32)), {0, 1000});
  check_equal(silu(vector({-1000, 1000}, f32)), {0, 1000});
}

TEST_CASE("round is to nearest, ties to even") {
  check_equal(round(vector({-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.6})), {-2, -2, 0, 0, 2, 2, 3});
  check_equal(floor(vector({-2.5, -1, 0.5, 2.9})), {-3, -1, 0, 2});
  const auto rounded = [](const Tensor& x) { return round(3 * x) + floor(x); };
  check_equal(slope(rounded, vector({0.3, 7.2})), {0, 0});
}

TEST_CASE("slopes at kinks are as documented") {
  const Tensor at = vector({-1, 0, 1});
  check_equal(slope([](const Tensor& x) { return relu(x); }, at), {0, 0, 1});
  check_equal(slope([](const Tensor& x) { return leaky_relu(x, 0.25); }, at), {0.25, 0.25, 1});
  check_equal(slope([](const Tensor& x) { return elu(x, 3); }, vector({0, 1})), {3, 1});
  check_equal(slope([](const Tensor& x) { return abs(x); }, at), {-1, 0, 1});
  const auto clamped = [](const Tensor& x) { return clamp(x, -1, 1); };
  check_equal(slope(clamped, vector({-2, -1, 0, 1, 2})), {0, 1, 1, 1, 0});
}

TEST_CASE("powers at zero have finite gradients") {
  check_equal(slope([](const Tensor& x) { return pow(x, 0); }, vector({0, 2})), {0, 0});
  check_equal(slope([](const Tensor& x) { return pow(x, 1); }, vector({0, 2})), {1, 1});
  check_equal(slope([](const Tensor& x) { return pow(x, 2); }, vector({0, -2})), {0, -4});
  Tape tape;
  const Tensor a = tape.watch(vector({0, 0, 2})), b = tape.watch(vector({0, 3, 0}));
  const auto gradients = tape.gradient(sum(pow(a, b)), {a, b});
  check_equal(gradients[0], {0, 0, 0});
  check_close(gradients[1], {0, 0, std::log(2.0)});
}

TEST_CASE("clamp takes bounds that make sense") {
  check_equal(clamp(vector({-3, 0.5, 3}), -1, 2), {-1, 0.5, 2});
  check_equal(clamp(vector({-3, 3}), -INFINITY, 1), {-3, 1});
  check_equal(clamp(vector({-3, 3}), 5, 5), {5, 5});
  check_equal(clamp(vector({-3, 7}, i32), -1, INFINITY), {-1, 7});
  check_equal(clamp(vector({-3, 7}, i32), -1e12, 1e12), {-3, 7});
  CHECK(std::isnan(clamp(vector({NAN}), 0, 1).item()));
  const Tensor x = zeros({2, 3});
  CHECK_THROWS_WITH_AS(
      clamp(x, 2, 1),
      Contains("clamp: low is 2 and high is 1; low must not exceed high; x is f32 [2, 3] ("),
      ValueError);
  CHECK_THROWS_AS(clamp(x, NAN, 1), ValueError);
  CHECK_THROWS_AS(clamp(x, 0, NAN), ValueError);
  CHECK_THROWS_WITH_AS(clamp(x.to(i32), 0.5, 1),
                       Contains("the bounds of integers must be whole numbers; x is i32"),
                       DTypeError);
}

TEST_CASE("comparisons and logic give 0 and 1") {
  const Tensor a = vector({1, 2, 3, NAN}), b = vector({2, 2, 2, NAN});
  check_equal(less(a, b), {1, 0, 0, 0});
  check_equal(less_equal(a, b), {1, 1, 0, 0});
  check_equal(greater(a, b), {0, 0, 1, 0});
  check_equal(greater_equal(a, b), {0, 1, 1, 0});
  check_equal(equal(a, b), {0, 1, 0, 0});
  check_equal(not_equal(a, b), {1, 0, 1, 1});
  check_equal(a <= 2, {1, 1, 0, 0});
  check_equal(2 >= a, {1, 1, 0, 0});
  CHECK((a <= b).dtype() == i32);
  CHECK_THROWS_WITH_AS((void)(vector({1, 2}, i32) <= 0.5),
                       Contains("the number 0.5 cannot be an operand"), DTypeError);

  const Tensor p = vector({0, 0, 2, -1}, i32), q = vector({0, 3, 0, 5}, i32);
  check_equal(logical_and(p, q), {0, 0, 0, 1});
  check_equal(logical_or(p, q), {0, 1, 1, 1});
  check_equal(logical_xor(p, q), {0, 1, 1, 0});
  check_equal(logical_not(p), {1, 1, 0, 0});
  CHECK_THROWS_WITH_AS(logical_and(p, a),
                       Contains("logical_and: b must be i32; a is i32 [4], b is"), DTypeError);
}

TEST_CASE("integers wrap around instead of overflowing") {
  constexpr double most = 2147483647, least = -2147483648;
  const Tensor x = vector({most, least}, i32);
  check_equal(x + 1, {least, least + 1});
  check_equal(x - 1, {most - 1, most});
  check_equal(x * 2, {-2, 0});
  check_equal(square(x), {1, 0});
  check_equal(-x, {-most, least});
  check_equal(abs(x), {most, least});
  CHECK(sum(vector({most, 1}, i32)).item() == least);
  CHECK(prod(vector({most, 2}, i32)).item() == -2);
  check_equal(cumsum(vector({most, 1, 1}, i32)), {most, least, least + 1});
  check_equal(outer(vector({most}, i32), vector({2}, i32)), {-2});
}

namespace {

const double infinity = std::numeric_limits<double>::infinity();

using Function = std::function<Tensor(const Tensor&)>;

std::vector<double> slopes(const Function& f, const std::vector<double>& at, DType dtype = f32,
                           bool graph = false) {
  Tape tape;
  const Tensor x = tape.watch(tensor({static_cast<Index>(at.size())}, at, dtype));
  return tape.gradient(sum(f(x)), {x}, {.create_graph = graph})[0].to_vector();
}

std::vector<double> second_slopes(const Function& f, const std::vector<double>& at, DType dtype) {
  Tape tape;
  const Tensor x = tape.watch(tensor({static_cast<Index>(at.size())}, at, dtype));
  const Tensor g = tape.gradient(sum(f(x)), {x}, {.create_graph = true})[0];
  return tape.gradient(sum(g), {x})[0].to_vector();
}

using Numbers = std::vector<double>;

}  // namespace

TEST_CASE("what was not taken has the gradient 0 under an infinite one") {
  for (const bool graph : {false, true}) {
    CAPTURE(graph);
    const auto at = [&](const Function& f, const Numbers& x) { return slopes(f, x, f32, graph); };
    CHECK(at([](const Tensor& x) { return log(maximum(x, 0.0)); }, {-1}) == Numbers{0});
    CHECK(at([](const Tensor& x) { return log(maximum(0.0, x)); }, {-1}) == Numbers{0});
    CHECK(at([](const Tensor& x) { return log(-minimum(x, 0.0)); }, {1}) == Numbers{0});
    CHECK(at([](const Tensor& x) { return maximum(x, 2.0); }, {1, 2, 3}) == Numbers{0, 0.5, 1});
    CHECK(at([](const Tensor& x) { return sqrt(max(x)); }, {-1, 0}) == Numbers{0, infinity});
    CHECK(at([](const Tensor& x) { return sqrt(-min(x)); }, {1, 0}) == Numbers{0, -infinity});
    CHECK(at([](const Tensor& x) { return max(x); }, {1, 3, 3}) == Numbers{0, 0.5, 0.5});
    CHECK(at([](const Tensor& x) { return log(abs(x)); }, {0}) == Numbers{0});
    CHECK(at([](const Tensor& x) { return log(leaky_relu(x, 0)); }, {-1}) == Numbers{0});
    CHECK(at([](const Tensor& x) { return log(elu(x, 0)); }, {-1}) == Numbers{0});
    CHECK(at([](const Tensor& x) { return log(norm(x)); }, {0, 0}) == Numbers{0, 0});
    CHECK(at([](const Tensor& x) { return log(reel::std(x)); }, {2, 2}) == Numbers{0, 0});
  }
}

TEST_CASE("second derivatives vanish at infinity") {
  const Function functions[] = {
      [](const Tensor& x) { return erf(x); }, [](const Tensor& x) { return erfc(x); },
      [](const Tensor& x) { return gelu(x); }, [](const Tensor& x) { return silu(x); }};
  for (const Function& f : functions)
    for (const DType dtype : {f32, f64})
      CHECK(second_slopes(f, {-infinity, infinity}, dtype) == Numbers{0, 0});
  CHECK(slopes(functions[2], {-infinity, infinity}, f32, true) == Numbers{0, 1});
  CHECK(slopes(functions[3], {-infinity, infinity}, f32, true) == Numbers{0, 1});
}

TEST_CASE("silu and gelu are 0 only where the result is subnormal") {
  const auto near = [](double found, double expected, double error) {
    CAPTURE(found);
    CAPTURE(expected);
    CHECK(std::abs(found - expected) <= error * std::abs(expected));
  };
  const Function of_silu = [](const Tensor& x) { return silu(x); };
  const Function of_gelu = [](const Tensor& x) { return gelu(x); };
  near(silu(tensor({1}, Numbers{-88})).item(), -88 * std::exp(-88.0), 1e-6);
  near(slopes(of_silu, {-88})[0], -87 * std::exp(-88.0), 1e-6);
  near(silu(tensor({1}, Numbers{-709.5}, f64)).item(), -709.5 * std::exp(-706.0) * std::exp(-3.5),
       1e-12);
  near(slopes(of_silu, {-709.5}, f64)[0], -708.5 * std::exp(-706.0) * std::exp(-3.5), 1e-12);
  near(silu(tensor({1}, Numbers{-81}, f64)).item(), -81 * std::exp(-81.0), 1e-14);
  near(gelu(tensor({1}, Numbers{-13})).item(), -13 * std::erfc(13 / std::sqrt(2.0)) / 2, 1e-6);
  const double density = std::exp(-84.5) / std::sqrt(2 * std::acos(-1.0));
  near(slopes(of_gelu, {-13})[0], std::erfc(13 / std::sqrt(2.0)) / 2 - 13 * density, 1e-6);
  // x Φ(x) ≈ -φ(x) (1 - 1/x² + 3/x⁴ - 15/x⁶ + 105/x⁸)
  const double x = -37.6, q = 1 / (x * x);
  const double tail = -std::exp(-x * x / 2 + 10) * std::exp(-10.0) / std::sqrt(2 * std::acos(-1.0));
  near(gelu(tensor({1}, Numbers{x}, f64)).item(),
       tail * (1 - q + 3 * q * q - 15 * q * q * q + 105 * q * q * q * q), 1e-10);
}

TEST_CASE("slopes at -0, of the power 0 and of a target without a weight") {
  CHECK(slopes([](const Tensor& x) { return sqrt(x); }, {-0.0}) == Numbers{infinity});
  const Tensor zero = zeros({1});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(slopes([&](const Tensor& x) { return pow(x, zero); }, {nan}) == Numbers{0});
  CHECK(slopes([](const Tensor& x) { return pow(x, 0.0); }, {nan}) == Numbers{0});
  const Tensor lowest = full({1}, -infinity);
  for (const bool graph : {false, true})
    CHECK(
        slopes([&](const Tensor& t) { return bce_with_logits(lowest, t, {.positive_weight = 0}); },
               {1}, f32, graph) == Numbers{0});
}
