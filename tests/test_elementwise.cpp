// Values of the elementwise ops at points worked out by hand, and NumPy's conventions.
#include <doctest/doctest.h>

#include <cmath>

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
