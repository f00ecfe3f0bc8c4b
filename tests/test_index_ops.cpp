#include <doctest/doctest.h>

#include <cmath>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

using namespace reel;
using doctest::Contains;

namespace {

using Values = std::vector<double>;

}  // namespace

TEST_CASE("take_along takes an element of each line") {
  const Tensor x = tensor({2, 3}, {10, 11, 12, 20, 21, 22});
  // numpy.take_along_axis(x, indices, axis)
  CHECK(take_along(x, tensor({2, 4}, {0, 0, 2, 1, 2, 1, 0, 0}, i32), 1).to_vector() ==
        Values{10, 10, 12, 11, 22, 21, 20, 20});
  CHECK(take_along(x, tensor({1, 3}, {1, 0, 1}, i32), 0).to_vector() == Values{20, 11, 22});
  CHECK(take_along(x.to(i32), tensor({2, 1}, {2, 0}, i32), -1).to_vector() == Values{12, 20});
  CHECK_THROWS_WITH_AS(
      take_along(x, tensor({2, 2}, {0, 1, 3, 0}, i32), 1),
      Contains(
          "take_along: index 3 at position 2 is not among the 3 elements of the axis (0 to 2) ("),
      ValueError);
  CHECK_THROWS_AS(take_along(x, tensor({2, 1}, {-1, 0}, i32), 1), ValueError);
  CHECK_THROWS_WITH_AS(take_along(x, tensor({3, 1}, {0, 0, 0}, i32), 1),
                       Contains("take_along: shapes must agree on all axes but 1; x is f32 [2, 3], "
                                "indices is i32 [3, 1] ("),
                       ShapeError);
  CHECK_THROWS_AS(take_along(x, tensor({2}, {0, 0}, i32), 1), ShapeError);
}

TEST_CASE("scatter_along adds where indices repeat") {
  const Tensor source = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor indices = tensor({2, 3}, {0, 0, 3, 1, 1, 1}, i32);
  CHECK(scatter_along(source, indices, 4, 1).to_vector() == Values{3, 0, 0, 3, 0, 15, 0, 0});
  CHECK(scatter_along(source, tensor({2, 3}, {1, 0, 0, 1, 0, 1}, i32), 2, 0).to_vector() ==
        Values{0, 7, 3, 5, 0, 6});
  CHECK_THROWS_WITH_AS(scatter_along(source, indices, 3, 1),
                       Contains("scatter_along: index 3 at position 2 is not among the 3 elements"),
                       ValueError);
  CHECK_THROWS_WITH_AS(scatter_along(source, indices, -1, 1),
                       Contains("scatter_along: an axis cannot have -1 elements"), ShapeError);
  CHECK_THROWS_WITH_AS(scatter_along(source, indices, 0, 1),
                       Contains("index 0 at position 0 is not among the 0 elements of the axis ("),
                       ValueError);
}

TEST_CASE("one_hot marks each index") {
  const Tensor y = one_hot(tensor({2}, {2, 0}, i32), 3);
  CHECK(y.dtype() == f32);
  CHECK(y.shape() == Shape{2, 3});
  CHECK(y.to_vector() == Values{0, 0, 1, 1, 0, 0});
  CHECK(one_hot(tensor({}, {1}, i32), 2, f64).dtype() == f64);
  CHECK(one_hot(tensor({}, {1}, i32), 2, i32).to_vector() == Values{0, 1});
  CHECK_THROWS_WITH_AS(
      one_hot(tensor({2}, {1, 3}, i32), 3),
      Contains("one_hot: index 3 at position 1 is not among the 3 classes (0 to 2) ("), ValueError);
  CHECK_THROWS_WITH_AS(one_hot(tensor({1}, {1}, i32), -3), Contains("there cannot be -3 classes"),
                       ShapeError);
}

TEST_CASE("masked_fill replaces even NaN") {
  const Tensor x = tensor({2, 2}, {1, NAN, INFINITY, 4}, f64);
  const Tensor mask = tensor({2, 2}, {0, 1, 7, 0}, i32);
  CHECK(masked_fill(x, mask, -INFINITY).to_vector() == Values{1, -INFINITY, -INFINITY, 4});
  CHECK(masked_fill(x, tensor({2, 1}, {1, 1}, i32), 5).to_vector() == Values{5, 5, 5, 5});
  CHECK(masked_fill(tensor({2}, {3, -1}, i32), tensor({2}, {0, 1}, i32), 9).to_vector() ==
        Values{3, 9});
  CHECK_THROWS_WITH_AS(
      masked_fill(ones({2}), mask, 0),
      Contains("masked_fill: the mask must broadcast to the shape of x; x is f32 [2], mask is i32 "
               "[2, 2] ("),
      ShapeError);
  for (const double bad : {0.5, 1e10, double{NAN}, double{-INFINITY}})
    CHECK_THROWS_WITH_AS(masked_fill(mask, mask, bad), Contains("is not an i32; x is i32 [2, 2]"),
                         ValueError);
  Tape tape;
  const Tensor w = tape.watch(x);
  CHECK(tape.gradient(sum(masked_fill(w, mask, 0)), {w})[0].to_vector() == Values{1, 0, 0, 1});
}

TEST_CASE("sort keeps equal elements in order, and puts NaN last in both directions") {
  const Tensor x = tensor({7}, {2, NAN, -1, 2, 3, NAN, -1});
  const auto [up, up_indices] = sort(x);
  CHECK(up_indices.to_vector() == Values{2, 6, 0, 3, 4, 1, 5});
  CHECK(slice(up, 0, 0, 5).to_vector() == Values{-1, -1, 2, 2, 3});
  CHECK(std::isnan(up.at({5})));
  CHECK(std::isnan(up.at({6})));
  const auto [down, down_indices] = sort(x, 0, true);
  CHECK(down_indices.to_vector() == Values{4, 0, 3, 2, 6, 1, 5});
  CHECK(slice(down, 0, 0, 5).to_vector() == Values{3, 2, 2, -1, -1});
  CHECK(argsort(x).to_vector() == up_indices.to_vector());
  CHECK(argsort(tensor({2}, {0., -0.})).to_vector() == Values{0, 1});
}

TEST_CASE("sort is along one axis, of numbers of all types") {
  const Tensor x = tensor({2, 3}, {3, 1, 2, 0, 5, 4}, i32);
  CHECK(sort(x, 0).values.to_vector() == Values{0, 1, 2, 3, 5, 4});
  CHECK(sort(x, 1, true).values.to_vector() == Values{3, 2, 1, 5, 4, 0});
  CHECK(sort(x, 1).indices.to_vector() == Values{1, 2, 0, 0, 2, 1});
  CHECK(sort(x).indices.dtype() == i32);
  const Tensor infinite = tensor({3}, {INFINITY, 0, -INFINITY});
  CHECK(sort(infinite).indices.to_vector() == Values{2, 1, 0});
  CHECK_THROWS_WITH_AS(sort(x, 2), Contains("sort: axis 2 is out of range"), ShapeError);
}

TEST_CASE("topk is the beginning of a descending sort") {
  Rng rng(3);
  const Tensor x = rng.normal({5, 31});
  const auto [values, indices] = topk(x, 4, 1);
  const auto [all, order] = sort(x, 1, true);
  CHECK(values.to_vector() == slice(all, 1, 0, 4).to_vector());
  CHECK(indices.to_vector() == slice(order, 1, 0, 4).to_vector());
  CHECK(topk_indices(tensor({4}, {1, NAN, 1, 0}), 3).to_vector() == Values{0, 2, 3});
  CHECK(topk(x, 0, 0).values.shape() == Shape{0, 31});
  CHECK_THROWS_WITH_AS(
      topk(x, 6, 0),
      Contains("topk: there are no 6 largest among the 5 elements of axis 0; x is f32 [5, 31]"),
      ShapeError);
  CHECK_THROWS_AS(topk(x, -1, 0), ShapeError);
}

TEST_CASE("the gradient of sorted values goes where they came from") {
  Tape tape;
  const Tensor x = tape.watch(tensor({4}, {3, 1, 4, 1}));
  const Tensor weights = tensor({4}, {1, 10, 100, 1000});
  CHECK(tape.gradient(sum(sort(x).values * weights), {x}, {.keep = true})[0].to_vector() ==
        Values{100, 1, 1000, 10});
  CHECK(tape.gradient(sum(topk(x, 2).values), {x}, {.keep = true})[0].to_vector() ==
        Values{1, 0, 1, 0});
  CHECK_THROWS_WITH_AS(tape.gradient(argsort(x), {x}), Contains("integers have no gradient"),
                       GradientError);
}
