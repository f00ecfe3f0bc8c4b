#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/params.h>
#include <reel/autograd/tape.h>

#include "testing.h"

// What is accepted as an argument. What is not is in compile/test_compile.py.
using namespace reel;
using doctest::Contains;
using testing::same_bits;
using Numbers = std::vector<double>;

TEST_CASE("an integer out of the range of an argument does not wrap around") {
  const Tensor x = ones({2, 3});
  constexpr Index beyond = (Index{1} << 32) + 1;  // 1 in 32 bits
  CHECK_THROWS_AS(sum(x, beyond), ShapeError);
  CHECK_THROWS_AS(softmax(x, -beyond), ShapeError);
  CHECK_THROWS_AS(x.size(std::numeric_limits<std::size_t>::max()), ShapeError);
  CHECK_THROWS_AS(select(x, 0, std::numeric_limits<std::uint64_t>::max()), ShapeError);
  CHECK_THROWS_AS(split(x, beyond, 1), ShapeError);
  CHECK(sum(x, std::size_t{1}).shape() == Shape{2});
  CHECK(x.size(static_cast<signed char>(-1)) == 3);
}

TEST_CASE("axes come from a number, a list or a vector") {
  const Tensor x = reshape(arange(12, f32), {2, 3, 2});
  enum Axis { time, batch };
  CHECK(same_bits(sum(x, batch), sum(x, {1})));
  CHECK(same_bits(sum(x, std::vector<int>{0, -1}), sum(x, {0, 2})));
  CHECK(same_bits(sum(x, std::vector<int>{}), sum(x)));
  CHECK(same_bits(norm(x, {1}), norm(x, Axes(1))));
  CHECK(same_bits(permute(x, std::vector<int>{2, 0, 1}), permute(x, {2, 0, 1})));
}

TEST_CASE("named functions of two operands take a number as one of them") {
  const Tensor x = tensor({3}, {-1, 0, 2}), whole = tensor({3}, {-1, 0, 2}, i32);
  CHECK(maximum(x, 0.0).to_vector() == Numbers{0, 0, 2});
  CHECK(maximum(1, whole).dtype() == i32);
  CHECK(minimum(x, 0).to_vector() == Numbers{-1, 0, 0});
  CHECK(equal(x, 2).to_vector() == Numbers{0, 0, 1});
  CHECK(not_equal(2, x).to_vector() == Numbers{1, 1, 0});
  CHECK(less(x, 0).to_vector() == Numbers{1, 0, 0});
  CHECK(less_equal(0, x).to_vector() == Numbers{0, 1, 1});
  CHECK(greater(x, 0.5).to_vector() == Numbers{0, 0, 1});
  CHECK(greater_equal(0.5, x).to_vector() == Numbers{1, 1, 0});
  CHECK(add(x, 1).to_vector() == Numbers{0, 1, 3});
  CHECK(sub(1, x).to_vector() == Numbers{2, 1, -1});
  CHECK(mul(x, 0.5f).to_vector() == Numbers{-0.5, 0, 1});
  CHECK(div(x, 2).to_vector() == Numbers{-0.5, 0, 1});
  CHECK(pow(2.0, x).to_vector() == Numbers{0.5, 1, 4});
  CHECK(lerp(x, 4, 0.5).to_vector() == Numbers{1.5, 2, 3});
  CHECK(logical_and(whole, 1).to_vector() == Numbers{1, 0, 1});
  const Tensor positive = x > 0;
  CHECK(where(positive, x, 0.0).to_vector() == Numbers{0, 0, 2});
  CHECK(where(positive, 1.5, x).to_vector() == Numbers{-1, 0, 1.5});
  CHECK(where(positive, 1, -1).dtype() == f32);
  CHECK(where(positive, ones({3}, f64), 0.1).to_vector()[0] == 0.1);
  CHECK_THROWS_WITH_AS(maximum(whole, 0.5),
                       Contains("the number 0.5 cannot be an operand of an i32 tensor; convert the "
                                "tensor with to() (" __FILE__ ":"),
                       DTypeError);
  CHECK_THROWS_WITH_AS(where(x, x, 0), Contains("(" __FILE__ ":"), DTypeError);

  Params params;
  Param w = params.create(
      "w", {3}, [](Rng&, const Shape& shape, DType dtype) { return full(shape, 3, dtype); });
  CHECK(maximum(w, 5).to_vector() == Numbers{5, 5, 5});
  CHECK(pow(w, 2).to_vector() == Numbers{9, 9, 9});
  CHECK(pow(w, w).to_vector() == Numbers{27, 27, 27});
}

TEST_CASE("a number as an operand does not change the tensor's gradient") {
  Tape tape;
  const Tensor x = tape.watch(tensor({3}, {-1, 0, 2}));
  const Tensor y = sum(maximum(x, 0.5) + where(x > 0, x, 0.0) + minimum(1, x) * 2);
  CHECK(tape.gradient(y, {x})[0].to_vector() == Numbers{2, 2, 2});
}

TEST_CASE("x[t] is element t of the first axis") {
  Tape tape;
  const Tensor x = tape.watch(reshape(arange(6, f32), {3, 2}));
  CHECK(x[0].to_vector() == Numbers{0, 1});
  CHECK(x[-1].to_vector() == Numbers{4, 5});
  CHECK(x[std::size_t{1}].shape() == Shape{2});
  CHECK(x[2][1].item() == 5);
  CHECK(tape.gradient(sum(square(x[1])), {x})[0].to_vector() == Numbers{0, 0, 4, 6, 0, 0});
  CHECK_THROWS_WITH_AS(x.detach()[3], Contains("has no element 3 (" __FILE__ ":"), ShapeError);
  CHECK_THROWS_WITH_AS(scalar(1)[0], Contains("(" __FILE__ ":"), ShapeError);
}

TEST_CASE("compound assignments make a new value") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2}, {1, 2}));
  Tensor y = x;
  y += 1;
  y *= x;
  y -= tensor({2}, {1, 1});
  y /= 2;
  CHECK(y.to_vector() == Numbers{0.5, 2.5});
  CHECK(x.to_vector() == Numbers{1, 2});
  Tensor loss = scalar(0);
  for (int t = 0; t < 3; ++t) loss += sum(y);
  CHECK(loss.item() == 9);
  // y = (x² + x - 1) / 2, three times
  CHECK(tape.gradient(loss, {x})[0].to_vector() == Numbers{4.5, 7.5});

  const Tensor before = scalar(1);
  Tensor after = before;
  CHECK_THROWS_WITH_AS(
      after += ones({3}),
      Contains("+=: a would take another shape; a is f32 [], b is f32 [3] (" __FILE__ ":"),
      ShapeError);
  CHECK(after.buffer().shares(before.buffer()));
  Tensor row = ones({1, 3});
  CHECK_THROWS_AS(row *= ones({2, 3}), ShapeError);
  CHECK_THROWS_WITH_AS(row -= ones({2}), Contains("sub: "), ShapeError);
  Tensor none;
  CHECK_THROWS_WITH_AS(none += 1, Contains("add: a is undefined"), ValueError);
}

TEST_CASE("a gradient with respect to a list of parameters") {
  Params params;
  const auto filled = [](Rng&, const Shape& shape, DType dtype) { return full(shape, 2, dtype); };
  const Param w = params.create("w", {2}, filled), b = params.create("b", {}, filled);
  Tape tape;
  const Tensor loss = sum(square(w) + b);
  const std::vector<Tensor> gradients = tape.gradient(loss, params.list());
  REQUIRE(gradients.size() == 2);
  CHECK(gradients[0].to_vector() == Numbers{4, 4});
  CHECK(gradients[1].item() == 2);
}

TEST_CASE("cross_entropy says what both kinds of targets need") {
  CHECK_THROWS_WITH_AS(
      cross_entropy(zeros({2, 3}), zeros({2})),
      Contains("cross_entropy: targets that are classes are i32 in the shape of the logits without "
               "the last axis, and targets that are probabilities have the shape of the logits; "
               "logits is f32 [2, 3], targets is f32 [2]"),
      ShapeError);
  const Tensor classes = zeros({2}, i32);
  CHECK(
      same_bits(cross_entropy(zeros({2, 3}), classes, {}), cross_entropy(zeros({2, 3}), classes)));
  CHECK(same_bits(cross_entropy(zeros({2, 3}), classes, ones({2})),
                  cross_entropy(zeros({2, 3}), classes, {.weights = ones({2})})));
}

TEST_CASE("an undefined tensor is called that, not one without axes") {
  const Tensor none;
  const auto undefined = Contains("is undefined: it was never given a value");
  CHECK_THROWS_WITH_AS(softmax(none), undefined, ValueError);
  CHECK_THROWS_WITH_AS(log_softmax(none), undefined, ValueError);
  CHECK_THROWS_WITH_AS(select(none, 0, 0), undefined, ValueError);
  CHECK_THROWS_WITH_AS(none[0], undefined, ValueError);
  CHECK_THROWS_WITH_AS(sum(none, 0), undefined, ValueError);
  CHECK_THROWS_WITH_AS(argmax(none, 0), undefined, ValueError);
  CHECK_THROWS_WITH_AS(transpose(none, 0, 1), undefined, ValueError);
  CHECK_THROWS_WITH_AS(split(none, 2, 0), undefined, ValueError);
}

TEST_CASE("topk names itself in its errors") {
  const Tensor x = zeros({2});
  CHECK_THROWS_WITH_AS(topk(x, 3), Contains("topk: there are no 3 largest"), ShapeError);
  CHECK_THROWS_WITH_AS(topk_indices(x, 3), Contains("topk_indices: there are no"), ShapeError);
}
