#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

using namespace reel;
using doctest::Contains;

namespace {

using Values = std::vector<double>;

// 0, 1, 2, ...
Tensor counting(const Shape& shape, DType dtype = f64) {
  Values values;
  for (Index i = 0; i < shape.size(); ++i) values.push_back(static_cast<double>(i));
  return tensor(shape, values, dtype);
}

}  // namespace

TEST_CASE("reshape, squeeze and expand share the memory of their input") {
  const Tensor x = counting({2, 1, 3});
  for (Tensor y : {reshape(x, {3, -1}), squeeze(x, 1), squeeze(x), expand(x, 0)}) {
    CHECK(y.buffer().shares(x.buffer()));
    CHECK(y.to_vector() == x.to_vector());
    y.edit<double>()[0] = 9;
    CHECK(x.to_vector()[0] == 0);
  }
  Tape tape;
  const Tensor w = tape.watch(x), y = reshape(w, {6});
  CHECK(y.buffer().shares(x.buffer()));
  const Tensor gradient = tape.gradient(sum(square(y)) + sum(w), {w})[0];
  CHECK(gradient.to_vector() == Values{1, 3, 5, 7, 9, 11});
  CHECK(gradient.shape() == x.shape());
}

TEST_CASE("a size of -1 is inferred from the other sizes") {
  CHECK(reshape(counting({2, 6}), {3, -1, 2}).shape() == Shape{3, 2, 2});
  CHECK(reshape(scalar(3), {-1}).shape() == Shape{1});
  CHECK(reshape(zeros({0, 3}), {-1, 3}).shape() == Shape{0, 3});
  CHECK_THROWS_WITH_AS(reshape(zeros({6}), {-1, -1}),
                       Contains("cannot take shape [-1, -1]: only one size may be -1"), ShapeError);
}

TEST_CASE("squeeze and expand remove and insert axes") {
  const Tensor x = zeros({2, 1, 3, 1});
  CHECK(squeeze(x, 1).shape() == Shape{2, 3, 1});
  CHECK(squeeze(x, -1).shape() == Shape{2, 1, 3});
  CHECK(squeeze(x).shape() == Shape{2, 3});
  CHECK(squeeze(ones({1, 1})).shape() == Shape{});
  const Tensor m = zeros({2, 3});
  CHECK(expand(m, 0).shape() == Shape{1, 2, 3});
  CHECK(expand(m, 1).shape() == Shape{2, 1, 3});
  CHECK(expand(m, -1).shape() == Shape{2, 3, 1});
  CHECK(expand(m, -3).shape() == Shape{1, 2, 3});
  CHECK_THROWS_WITH_AS(
      squeeze(x, 2),
      Contains("squeeze: axis 2 has 3 elements and cannot be removed; x is f32 [2, 1, 3, 1] ("),
      ShapeError);
  CHECK_THROWS_WITH_AS(expand(x, 0), Contains("expand: there cannot be more than 4 axes"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(expand(m, 3), Contains("expand: axis 3 is out of range"), ShapeError);
}

TEST_CASE("permute puts axes in order") {
  const Tensor x = counting({2, 3, 4}), y = permute(x, {2, 0, 1});
  CHECK(y.shape() == Shape{4, 2, 3});
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j)
      for (Index k = 0; k < 4; ++k) CHECK(y.at({k, i, j}) == x.at({i, j, k}));
  CHECK(permute(y, {1, 2, 0}).to_vector() == x.to_vector());
  CHECK(permute(x, {0, -1, 1}).to_vector() == transpose(x, 1, 2).to_vector());
  CHECK(permute(counting({2, 2}, i32), {1, 0}).to_vector() == Values{0, 2, 1, 3});
  const char* const message =
      "permute: axes (0, 0, 2) do not name each of the 3 axes of shape [2, 3, 4] once (";
  CHECK_THROWS_WITH_AS(permute(x, {0, 0, 2}), Contains(message), ShapeError);
  CHECK_THROWS_AS(permute(x, {0, 1}), ShapeError);
  CHECK_THROWS_AS(permute(x, {0, 1, 2, 0, 1}), ShapeError);
  CHECK_THROWS_WITH_AS(permute(x, {0, 1, 3}), Contains("permute: axis 3 is out of range"),
                       ShapeError);
}

TEST_CASE("a slice may have a step") {
  const Tensor x = counting({7});
  CHECK(slice(x, 0, 1, 6, 2).to_vector() == Values{1, 3, 5});
  CHECK(slice(x, 0, 0, 7, 3).to_vector() == Values{0, 3, 6});
  CHECK(slice(x, 0, -4, -1, 2).to_vector() == Values{3, 5});
  CHECK(slice(x, 0, 2, 7, 100).to_vector() == Values{2});
  CHECK(slice(x, 0, 7, 7, 2).size() == 0);
  CHECK(slice(counting({2, 3}), 1, 0, 3, 2).to_vector() == Values{0, 2, 3, 5});
  constexpr Index largest = std::numeric_limits<Index>::max();
  CHECK(slice(x, 0, 0, 7, largest).to_vector() == Values{0});
  CHECK_THROWS_WITH_AS(
      slice(x, 0, 5, 1, -1),
      Contains("slice: the step must be at least 1, not -1; flip() reverses; x is f64 [7] ("),
      ShapeError);
  CHECK_THROWS_AS(slice(x, 0, 5, 1), ShapeError);
  CHECK_THROWS_AS(slice(x, 0, -largest - 1, largest), ShapeError);
}

TEST_CASE("pad spreads what a slice with the same step takes") {
  const Tensor x = counting({2, 2});
  CHECK(pad(x, 1, 1, 2).to_vector() == Values{0, 0, 1, 0, 0, 0, 2, 3, 0, 0});
  CHECK(pad(x, 1, 1, 0, 2).to_vector() == Values{0, 0, 0, 1, 0, 2, 0, 3});
  CHECK(slice(pad(x, 0, 3, 4, 5), 0, 3, 9, 5).to_vector() == x.to_vector());
  CHECK(pad(zeros({0}), 0, 1, 2, 3).shape() == Shape{3});
  CHECK_THROWS_WITH_AS(pad(x, 0, 0, 0, 0), Contains("pad: the step must be at least 1, not 0"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(pad(x, 0, -1, 0), Contains("pad: cannot pad by -1 and 0; use slice()"),
                       ShapeError);
  constexpr Index largest = std::numeric_limits<Index>::max();
  CHECK_THROWS_WITH_AS(pad(x, 0, largest, largest),
                       Contains("pad: the result would have too many elements"), ShapeError);
  CHECK_THROWS_AS(pad(x, 0, 0, 0, largest), ShapeError);
}

TEST_CASE("select names the element that is not there") {
  const Tensor x = counting({2, 3});
  CHECK(select(x, 1, -1).to_vector() == Values{2, 5});
  CHECK(select(x, 0, 1).shape() == Shape{3});
  CHECK_THROWS_WITH_AS(select(x, 1, 3),
                       Contains("select: axis 1 of shape [2, 3] has no element 3 ("), ShapeError);
  CHECK_THROWS_AS(select(x, 1, -4), ShapeError);
  CHECK_THROWS_AS(select(x, 1, std::numeric_limits<Index>::max()), ShapeError);
}

TEST_CASE("split cuts an axis in equal parts or in parts of given sizes") {
  const Tensor x = counting({2, 6});
  const Tensors halves = split(x, 2, 1);
  CHECK(halves.size() == 2);
  CHECK(halves[1].to_vector() == Values{3, 4, 5, 9, 10, 11});
  const Tensors parts = split(x, {1, 0, 5}, -1);
  CHECK(parts.size() == 3);
  CHECK(parts[0].to_vector() == Values{0, 6});
  CHECK(parts[1].shape() == Shape{2, 0});
  CHECK(concat(parts, 1).to_vector() == x.to_vector());
  CHECK_THROWS_WITH_AS(split(x, {1, 4}, 1),
                       Contains("split: sizes (1, 4) do not make up axis 1 of shape [2, 6] ("),
                       ShapeError);
  CHECK_THROWS_AS(split(x, {4, 4}, 1), ShapeError);
  CHECK_THROWS_AS(split(x, {7, -1}, 1), ShapeError);
  CHECK_THROWS_WITH_AS(split(x, 4, 1), Contains("has 6 elements, not a multiple of 4 ("),
                       ShapeError);
}

TEST_CASE("repeat repeats each element") {
  const Tensor x = counting({2, 2});
  CHECK(repeat(x, 2, 0).to_vector() == Values{0, 1, 0, 1, 2, 3, 2, 3});
  CHECK(repeat(x, 2, 1).to_vector() == Values{0, 0, 1, 1, 2, 2, 3, 3});
  CHECK(repeat(x, 0, 1).shape() == Shape{2, 0});
  CHECK_THROWS_WITH_AS(repeat(x, -1, 0),
                       Contains("repeat: the count must not be negative, as -1 is"), ShapeError);
  CHECK_THROWS_WITH_AS(repeat(x, Shape::max_size, 0), Contains("would have too many elements"),
                       ShapeError);
}

TEST_CASE("tril and triu keep a triangle of each matrix") {
  const Tensor x = counting({3, 3}) + 1;
  CHECK(tril(x).to_vector() == Values{1, 0, 0, 4, 5, 0, 7, 8, 9});
  CHECK(tril(x, 1).to_vector() == Values{1, 2, 0, 4, 5, 6, 7, 8, 9});
  CHECK(triu(x).to_vector() == Values{1, 2, 3, 0, 5, 6, 0, 0, 9});
  CHECK(triu(x, -1).to_vector() == Values{1, 2, 3, 4, 5, 6, 0, 8, 9});
  CHECK(triu(counting({2, 1, 2}) + 1, 1).to_vector() == Values{0, 2, 0, 4});
  for (const Index far : {Index{3}, std::numeric_limits<Index>::max()}) {
    CHECK(tril(x, far).to_vector() == x.to_vector());
    CHECK(tril(x, -far).to_vector() == Values(9, 0));
    CHECK(triu(x, -far).to_vector() == x.to_vector());
    CHECK(triu(x, far).to_vector() == Values(9, 0));
  }
  CHECK(tril(full({2, 2}, NAN, f64)).at({0, 1}) == 0);
  CHECK_THROWS_WITH_AS(tril(zeros({3})), Contains("tril: there must be rows and columns; x is f32"),
                       ShapeError);
}

TEST_CASE("a shape of more elements than can be counted is refused") {
  constexpr Index big = Index{1} << 40;
  CHECK_THROWS_WITH_AS((Shape{big, big}), Contains("at most 2^59 elements"), ShapeError);
  CHECK_THROWS_AS((Shape{0, big, big}), ShapeError);
  CHECK_THROWS_AS((Shape{2, big}.with(0, big)), ShapeError);
  CHECK(Shape{Shape::max_size, 1}.size() == Shape::max_size);
}
