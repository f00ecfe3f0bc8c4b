// Products against loops, and what they refuse.
#include <doctest/doctest.h>

#include <cstring>

#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;
using testing::same_bits;

namespace {

// Element `index` of a shape that is broadcast to rank 4.
Index flat(const Shape& shape, std::array<Index, 4> index) {
  Index result = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const Index i = index[static_cast<std::size_t>(axis + 4 - shape.rank())];
    result += shape[axis] == 1 ? 0 : i * shape.stride(axis);
  }
  return result;
}

void check_product(const Shape& a_shape, const Shape& b_shape, const Shape& expected, bool ta,
                   bool tb) {
  CAPTURE(a_shape.str());
  CAPTURE(b_shape.str());
  Rng rng(3);
  const Tensor a = rng.normal(a_shape, 0, 1, f64), b = rng.normal(b_shape, 0, 1, f64);
  // The same numbers, stored transposed where the product is to transpose them back.
  const Tensor found = matmul(ta ? transpose(a) : a, tb ? transpose(b) : b, ta, tb);
  CHECK(found.shape() == expected);
  Shape out = expected;
  while (out.rank() < 4) out = out.insert(0, 1);
  const auto x = a.to_vector(), y = b.to_vector(), z = found.to_vector();
  const Index inner = a.size(-1);
  std::size_t at = 0;
  for (Index p = 0; p < out[0]; ++p)
    for (Index q = 0; q < out[1]; ++q)
      for (Index i = 0; i < out[2]; ++i)
        for (Index j = 0; j < out[3]; ++j) {
          double sum = 0;
          for (Index k = 0; k < inner; ++k)
            sum += x[static_cast<std::size_t>(flat(a_shape, {p, q, i, k}))] *
                   y[static_cast<std::size_t>(flat(b_shape, {p, q, k, j}))];
          CHECK(z[at++] == doctest::Approx(sum).epsilon(1e-12));
        }
}

}  // namespace

TEST_CASE("leading axes of a product broadcast") {
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      check_product({3, 4}, {4, 5}, {3, 5}, ta, tb);
      check_product({2, 3, 4}, {4, 5}, {2, 3, 5}, ta, tb);
      check_product({3, 4}, {2, 4, 5}, {2, 3, 5}, ta, tb);
      check_product({2, 3, 4}, {2, 4, 1}, {2, 3, 1}, ta, tb);
      check_product({2, 1, 3, 4}, {3, 4, 2}, {2, 3, 3, 2}, ta, tb);
      check_product({1, 3, 2, 4}, {2, 1, 4, 17}, {2, 3, 2, 17}, ta, tb);
    }
}

TEST_CASE("a product over no elements is zero") {
  const Tensor y = matmul(ones({5, 2, 0}), ones({0, 3}));
  CHECK(y.shape() == Shape{5, 2, 3});
  CHECK(sum(abs(y)).item() == 0);
  CHECK(matmul(ones({0, 2, 3}), ones({1, 3, 4})).shape() == Shape{0, 2, 4});
}

TEST_CASE("each row has the bits of its own product, whatever the other rows are") {
  Rng rng(4);
  const Tensor a = rng.normal({5, 3, 300}), w = rng.normal({300, 33}), b = rng.normal({33});
  const Tensor all = matmul(a, w), through = affine(a, transpose(w), b);
  for (Index t = 0; t < 5; ++t) {
    CHECK(same_bits(select(all, 0, t), matmul(select(a, 0, t), w)));
    CHECK(same_bits(select(through, 0, t), affine(select(a, 0, t), transpose(w), b)));
  }
  CHECK(same_bits(all, matmul(a, reshape(w, {1, 300, 33}))));
}

TEST_CASE("a product is one record") {
  Tape tape;
  const Tensor w = tape.watch(ones({3, 2}));
  matmul(ones({4, 5, 3}), w);
  CHECK(tape.size() == 1);
}

TEST_CASE("outer and dot take vectors") {
  const Tensor a = tensor({3}, {1, 2, 3}, f64), b = tensor({2}, {10, 100}, f64);
  CHECK(outer(a, b).to_vector() == std::vector<double>{10, 100, 20, 200, 30, 300});
  CHECK(outer(a.to(i32), b.to(i32)).dtype() == i32);
  CHECK(dot(a, a).item() == 14);
  CHECK(dot(a, a).shape() == Shape{});
  CHECK_THROWS_WITH_AS(dot(a, b), Contains("dot: the vectors differ in length; a is f64 [3], b is"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(dot(outer(a, b), b), Contains("dot: both must be vectors"), ShapeError);
  CHECK_THROWS_WITH_AS(outer(a, scalar(1, f64)), Contains("outer: both must be vectors"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(matmul(outer(a, b), b), Contains("dot() and outer() take vectors"),
                       ShapeError);
}
