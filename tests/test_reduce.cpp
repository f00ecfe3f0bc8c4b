// Reductions and scans: values worked out by hand, NumPy's conventions, gradients at special
// points.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

using namespace reel;
using doctest::Contains;

namespace {

const Tensor matrix = tensor({2, 3}, {1, 2, 3, 4, 5, 9}, f64);

Tensor vector(std::initializer_list<double> numbers, DType dtype = f64) {
  return tensor({static_cast<Index>(numbers.size())}, numbers, dtype);
}

void check_close(const Tensor& found, const Shape& shape, std::initializer_list<double> expected) {
  CHECK(found.shape() == shape);
  const std::vector<double> numbers = found.to_vector();
  REQUIRE(numbers.size() == expected.size());
  std::size_t i = 0;
  for (const double e : expected) CHECK(numbers[i++] == doctest::Approx(e).epsilon(1e-14));
}

Tensor slope(const std::function<Tensor(const Tensor&)>& f, const Tensor& at) {
  Tape tape;
  const Tensor x = tape.watch(at);
  return tape.gradient(f(x), {x})[0];
}

}  // namespace

TEST_CASE("a reduction is over the axes that are named") {
  check_close(sum(matrix), {}, {24});
  check_close(sum(matrix, 0), {3}, {5, 7, 12});
  check_close(sum(matrix, -1), {2}, {6, 18});
  check_close(sum(matrix, 1, true), {2, 1}, {6, 18});
  check_close(sum(matrix, {0, 1}, true), {1, 1}, {24});
  check_close(mean(matrix, 1), {2}, {2, 6});
  check_close(prod(matrix, 0), {3}, {4, 10, 27});
  check_close(max(matrix, 0), {3}, {4, 5, 9});
  check_close(min(matrix, 1, true), {2, 1}, {1, 4});
  check_close(norm(vector({3, 4})), {}, {5});
  check_close(sum(matrix.to(i32), 0), {3}, {5, 7, 12});
  CHECK(sum(matrix.to(i32)).dtype() == i32);
  CHECK_THROWS_WITH_AS(sum(matrix, 2), Contains("sum: axis 2 is out of range"), ShapeError);
  CHECK_THROWS_WITH_AS(var(matrix, -3), Contains("var: axis -3 is out of range"), ShapeError);
  CHECK_THROWS_WITH_AS(mean(matrix.to(i32)), Contains("mean: it does not take i32"), DTypeError);
}

TEST_CASE("a reduction is one record") {
  Tape tape;
  const Tensor x = tape.watch(matrix);
  sum(x, 1);
  mean(x, 0);
  CHECK(tape.size() == 2);
}

TEST_CASE("empty reductions") {
  const Tensor none = zeros({0}, f64), rows = zeros({0, 3}, f64);
  CHECK(sum(none).item() == 0);
  CHECK(prod(none).item() == 1);
  CHECK(norm(none).item() == 0);
  CHECK(std::isnan(mean(none).item()));
  CHECK(any(none).item() == 0);
  CHECK(all(none).item() == 1);
  CHECK(max(rows, 1).shape() == Shape{0});
  CHECK(argmin(rows, 1).shape() == Shape{0});
  CHECK_THROWS_WITH_AS(
      min(rows, 0),
      Contains("min: there is nothing to reduce along an empty axis; x is f64 [0, 3]"), ShapeError);
  CHECK_THROWS_WITH_AS(argmax(rows, 0), Contains("argmax: axis 0 is empty; x is f64 [0, 3] ("),
                       ShapeError);
}

TEST_CASE("variance and deviation, with NumPy's ddof") {
  check_close(var(matrix), {}, {20.0 / 3});
  check_close(var(matrix, 1), {2}, {2.0 / 3, 14.0 / 3});
  check_close(var(matrix, 1, false, 1), {2}, {1, 7});
  check_close(reel::std(matrix, 1, true, 1), {2, 1}, {1, std::sqrt(7.0)});
  // The mean is subtracted before squaring.
  CHECK(var(vector({1e8, 1e8 + 1, 1e8 + 2})).item() == doctest::Approx(2.0 / 3).epsilon(1e-12));
  CHECK_THROWS_WITH_AS(var(vector({1}), {}, false, 1),
                       Contains("var: 1 elements are too few for correction 1; x is f64 [1] ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(reel::std(zeros({0}, f64)), Contains("std: 0 elements are too few"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(var(matrix, {}, false, -1), Contains("the correction -1 is negative"),
                       ValueError);
}

TEST_CASE("where a gradient is not defined it is what the documentation says") {
  const auto deviation = [](const Tensor& x) { return reel::std(x); };
  const auto length = [](const Tensor& x) { return norm(x); };
  check_close(slope(deviation, vector({2, 2, 2})), {3}, {0, 0, 0});
  check_close(slope(length, vector({0, 0})), {2}, {0, 0});
  check_close(slope(length, vector({3, 4})), {2}, {0.6, 0.8});
  check_close(slope([](const Tensor& x) { return max(x); }, vector({1, 5, 5})), {3}, {0, 0.5, 0.5});
  check_close(slope([](const Tensor& x) { return min(x); }, vector({1, 1, 5, 1})), {4},
              {1. / 3, 1. / 3, 0, 1. / 3});
}

TEST_CASE("a norm neither overflows nor vanishes") {
  CHECK(norm(vector({3e200, 4e200})).item() == doctest::Approx(5e200));
  CHECK(norm(vector({3e-200, 4e-200})).item() == doctest::Approx(5e-200));
  CHECK(norm(vector({3e30, 4e30}, f32)).item() == doctest::Approx(5e30));
  CHECK(std::isinf(norm(vector({1, -INFINITY})).item()));
  CHECK(std::isnan(norm(vector({1, NAN})).item()));
}

TEST_CASE("the gradient of a product is right where elements are zero") {
  const auto product = [](const Tensor& x) { return prod(x); };
  check_close(slope(product, vector({2, 3, 4})), {3}, {12, 8, 6});
  check_close(slope(product, vector({2, 0, 4})), {3}, {0, 8, 0});
  check_close(slope(product, vector({0, 0, 4})), {3}, {0, 0, 0});
  // Second derivatives are the products without two elements.
  Tape tape;
  const Tensor x = tape.watch(vector({0, 0, 4}));
  const Tensor g = tape.gradient(prod(x), {x}, {.create_graph = true})[0];
  check_close(tape.gradient(select(g, 0, 0), {x})[0], {3}, {0, 4, 0});
  // Of three zeros the third derivatives see the last.
  const auto of_last = [](std::span<const Tensor> in) { return prod(in[0]); };
  CHECK(check_gradients(of_last, std::vector<Tensor>{vector({0, 0, 0, 4})}, {.order = 3}).ok);
  CHECK(check_gradients(
            [](std::span<const Tensor> in) {
              return prod(in[0], {0, 2});
            },
            std::vector<Tensor>{tensor({2, 2, 2}, {0, 1, 0, 0, 2, 3, 0, 4}, f64)}, {.order = 2})
            .ok);
}

TEST_CASE("a product is accurate at any length and in any range") {
  CHECK(prod(full({1000000}, 1.000001)).item() ==
        doctest::Approx(std::pow(double{1.000001f}, 1e6)).epsilon(1e-6));
  for (const DType dtype : {f32, f64})
    for (const double exponent : {20.0, 30.0, dtype == f32 ? 37.0 : 300.0}) {
      const double up = std::pow(10, exponent), down = std::pow(10, -exponent);
      const Tensor x = tensor({6}, {down, down, up, up, 2, -1}, f64).to(dtype);
      CHECK(prod(x).item() == doctest::Approx(-2).epsilon(1e-6));
      Tape tape;
      const Tensor watched = tape.watch(x);
      const std::vector<double> g = tape.gradient(prod(watched), {watched})[0].to_vector();
      for (std::size_t i = 0; i < 6; ++i)
        CHECK(g[i] == doctest::Approx(-2 / x.to_vector()[i]).epsilon(1e-6));
      CHECK(prod(concat({x, zeros({1}, dtype)}, 0)).item() == 0);
    }
  const Tensor many = concat({full({100}, 1e-30), full({100}, 1e30)}, 0);
  CHECK(prod(many).item() == doctest::Approx(1).epsilon(1e-4));
  CHECK(prod(full({100}, 1e-30)).item() == 0);
  CHECK(prod(full({100}, 1e300, f64)).item() == INFINITY);
  CHECK(prod(vector({INFINITY, -1e300, 1e300})).item() == -INFINITY);
  CHECK(std::isnan(prod(vector({INFINITY, 0})).item()));
}

TEST_CASE("the gradient of a deviation where differences from the mean overflow") {
  // d = x - mean is (2, 2, -4) 3.4e38 / 3, std = √(Σ d² / 3), its gradient d / (3 std).
  for (const double size : {3.4, 3.4e38})
    for (const bool create_graph : {false, true}) {
      Tape tape;
      const Tensor x = tape.watch(vector({size, size, -size}, f32));
      const Tensor g = tape.gradient(reel::std(x), {x}, {.create_graph = create_graph})[0];
      const double unit = 1 / std::sqrt(18.);
      for (std::size_t i = 0; i < 3; ++i)
        CHECK(g.to_vector()[i] == doctest::Approx(i < 2 ? unit : -2 * unit).epsilon(1e-6));
    }
}

TEST_CASE("extremes and their places: the first of equal ones, NaN above all") {
  const Tensor x = tensor({2, 4}, {1, 7, 7, 0, 4, 0, 0, 4}, f64);
  check_close(argmax(x), {2}, {1, 0});
  check_close(argmin(x, -1, true), {2, 1}, {3, 1});
  check_close(argmax(x, 0), {4}, {1, 0, 0, 1});
  CHECK(argmax(x).dtype() == i32);
  check_close(argmax(x.to(i32)), {2}, {1, 0});
  CHECK(argmax(vector({1, NAN, 9, NAN})).item() == 1);
  CHECK(argmin(vector({1, NAN, 9, NAN})).item() == 1);
  CHECK(std::isnan(max(vector({1, NAN, 9})).item()));
  CHECK(std::isnan(min(vector({1, NAN, 9})).item()));
  CHECK(max(vector({-INFINITY, -INFINITY})).item() == -INFINITY);
  CHECK(min(tensor({2}, {2147483647, 2147483647}, i32)).item() == 2147483647);
  CHECK_THROWS_WITH_AS(argmax(x, 2), Contains("argmax: axis 2 is out of range"), ShapeError);
}

TEST_CASE("any and all ask whether elements are not zero") {
  const Tensor x = tensor({2, 2}, {0, 0, 0.5, -1}, f64);
  check_close(any(x), {}, {1});
  check_close(any(x, 1), {2}, {0, 1});
  check_close(all(x, 0, true), {1, 2}, {0, 0});
  check_close(all(x, 1), {2}, {0, 1});
  check_close(any(x.to(i32), 1), {2}, {0, 1});
  CHECK(any(x).dtype() == i32);
}

TEST_CASE("cumulative sums in both directions") {
  check_close(cumsum(matrix, 0), {2, 3}, {1, 2, 3, 5, 7, 12});
  check_close(cumsum(matrix), {2, 3}, {1, 3, 6, 4, 9, 18});
  check_close(cumsum(matrix, 1, true), {2, 3}, {6, 5, 3, 18, 14, 9});
  check_close(cumsum(matrix.to(i32), 1), {2, 3}, {1, 3, 6, 4, 9, 18});
  CHECK_THROWS_WITH_AS(cumsum(matrix, 2), Contains("cumsum: axis 2 is out of range"), ShapeError);
}
