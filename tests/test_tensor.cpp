#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <sstream>
#include <thread>

#include <reel/autograd/matrix.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;

TEST_CASE("a shape knows its sizes, strides and neighbours") {
  const Shape shape{2, 3, 4};
  CHECK(shape.rank() == 3);
  CHECK(shape.size() == 24);
  CHECK(shape.stride(0) == 12);
  CHECK(shape.stride(2) == 1);
  CHECK(shape.str() == "[2, 3, 4]");
  CHECK(Shape{}.str() == "[]");
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{2, 0}.size() == 0);
  CHECK(shape.with(1, 5) == Shape{2, 5, 4});
  CHECK(shape.insert(0, 7) == Shape{7, 2, 3, 4});
  CHECK(shape.insert(3, 7) == Shape{2, 3, 4, 7});
  CHECK(shape.erase(1) == Shape{2, 4});
  CHECK(shape != Shape{2, 3});
  CHECK_THROWS_WITH_AS((Shape{1, 2, 3, 4, 5}),
                       Contains("shape [1, 2, 3, 4, 5]: a tensor has at most 4"), ShapeError);
  CHECK_THROWS_WITH_AS((Shape{2, -1}), Contains("shape [2, -1]"), ShapeError);
  CHECK_THROWS_WITH_AS(zeros({2, -1}), Contains("(" __FILE__ ":"), ShapeError);
  CHECK(Shape(std::vector<Index>{2, 3}) == Shape{2, 3});
  const std::array<Index, 2> sizes{2, 3};
  CHECK(Shape(std::span(sizes)) == Shape{2, 3});
  CHECK(zeros(std::vector<Index>{2, 3}).shape() == Shape{2, 3});
  CHECK_THROWS_AS(zeros(std::vector<Index>(5, 1)), ShapeError);
  std::ostringstream out;
  out << shape;
  CHECK(out.str() == "[2, 3, 4]");
  CHECK_THROWS_AS(Shape({1, 2, 3, 4}).insert(0, 1), ShapeError);
}

TEST_CASE("shapes broadcast as in NumPy") {
  CHECK(broadcast({3, 4}, {4}) == Shape{3, 4});
  CHECK(broadcast({2, 1, 3}, {5, 1}) == Shape{2, 5, 3});
  CHECK(broadcast({}, {2}) == Shape{2});
  CHECK(broadcast({0, 3}, {1, 3}) == Shape{0, 3});
  CHECK_THROWS_WITH_AS(
      broadcast({2, 3}, {4}),
      "shapes [2, 3] and [4] do not broadcast: sizes 3 and 4 differ and neither is 1", ShapeError);
}

TEST_CASE("tensors are made from numbers") {
  CHECK(tensor({2, 2}, {1, 2, 3, 4}).to_vector() == std::vector<double>{1, 2, 3, 4});
  CHECK(full({2}, 0.5, f64).to_vector() == std::vector<double>{0.5, 0.5});
  CHECK(zeros({0}).size() == 0);
  CHECK(ones({}, i32).item() == 1);
  CHECK(scalar(2.5).shape() == Shape{});
  const std::vector<std::int32_t> indices{4, 5};
  CHECK(tensor({2}, indices).dtype() == i32);
  CHECK(tensor({2}, indices, f64).dtype() == f64);
  CHECK(tensor({2}, std::vector<Index>{4, 5}).dtype() == i32);
  CHECK(tensor({2}, std::vector<float>{0.5f, 2}).dtype() == f32);
  CHECK(tensor({2}, std::vector<float>{0.5f, 2}, f64).to_vector() == std::vector<double>{0.5, 2});
  CHECK(tensor({2}, std::vector<double>{0.5, 2}, f64).to_vector() == std::vector<double>{0.5, 2});
  CHECK_THROWS_WITH_AS(
      tensor({2, 2}, {1, 2, 3}),
      Contains("tensor: 3 values cannot fill shape [2, 2], which has 4 elements (" __FILE__ ":"),
      ShapeError);
}

TEST_CASE("arange counts in steps up to an end that it does not reach") {
  CHECK(arange(3).dtype() == i32);
  CHECK(arange(3).to_vector() == std::vector<double>{0, 1, 2});
  CHECK(arange(2, 7, 2, f32).to_vector() == std::vector<double>{2, 4, 6});
  CHECK(arange(5, 0, -2, f64).to_vector() == std::vector<double>{5, 3, 1});
  for (const Tensor& none : {arange(0), arange(-3), arange(2, 2), arange(3, 2), arange(2, 3, -1)})
    CHECK(none.shape() == Shape{0});
  constexpr Index low = std::numeric_limits<Index>::min(), high = std::numeric_limits<Index>::max();
  CHECK(arange(low, high, high, f64).shape() == Shape{3});
  CHECK(arange(2147483646, 2147483648).to_vector() == std::vector<double>{2147483646, 2147483647});
  CHECK_THROWS_WITH_AS(arange(0, 3, 0), Contains("arange: the step must not be 0 (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_WITH_AS(arange(2147483646, 2147483649),
                       Contains("arange: 2147483648 cannot become an i32 (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_WITH_AS(arange(low, high, 1, f64), Contains("test_tensor.cpp:"), ShapeError);
}

TEST_CASE("eye has ones on its diagonal") {
  CHECK(eye(2).to_vector() == std::vector<double>{1, 0, 0, 1});
  CHECK(eye(2, 3, f64).to_vector() == std::vector<double>{1, 0, 0, 0, 1, 0});
  CHECK(eye(3, 1, i32).to_vector() == std::vector<double>{1, 0, 0});
  CHECK(eye(2, f64).dtype() == f64);
  CHECK(eye(0).shape() == Shape{0, 0});
  CHECK_THROWS_AS(eye(-1), ShapeError);
}

TEST_CASE("the numbers can be read") {
  const Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6}, f64);
  CHECK(x.at({1, 0}) == 4);
  CHECK(x.values<double>()[5] == 6);
  CHECK(x.size(-1) == 3);
  CHECK(x.size(0) == 2);
  CHECK(matrix<double>(x)(1, 2) == 6);
  CHECK(matrix<double>(reshape(x, {3, 1, 2})).rows() == 3);
  CHECK(matrix<double>(scalar(7, f64))(0, 0) == 7);
  CHECK(x.str() == "f64 [2, 3] [[1, 2, 3], [4, 5, 6]]");
  CHECK(tensor({9}, {0, 1, 2, 3, 4, 5, 6, 7, 8}).str() == "f32 [9] [0, 1, 2, 3, ..., 5, 6, 7, 8]");
  CHECK(reinterpret_cast<std::uintptr_t>(x.buffer().data()) % 64 == 0);
  std::ostringstream out;
  out << scalar(3, i32);
  CHECK(out.str() == "i32 [] 3");

  CHECK_THROWS_WITH_AS(
      x.item(), Contains("item: a tensor of shape [2, 3] is not a single number (" __FILE__ ":"),
      ShapeError);
  CHECK_THROWS_WITH_AS(
      x.at({2, 0}),
      Contains("at: axis 0 of a tensor of shape [2, 3] has no element 2 (" __FILE__ ":"),
      ShapeError);
  CHECK_THROWS_WITH_AS(
      x.at({1}), Contains("at: a tensor of shape [2, 3] takes 2 indices, not 1 (" __FILE__ ":"),
      ShapeError);
  CHECK_THROWS_WITH_AS(x.at({0, 0, 0}), Contains("takes 2 indices, not 3"), ShapeError);
  CHECK_THROWS_WITH_AS(x.values<float>(),
                       Contains("values: the elements of this tensor are f64, not f32; convert it "
                                "with to() (" __FILE__ ":"),
                       DTypeError);
  CHECK_THROWS_WITH_AS(x.size(2),
                       Contains("size: axis 2 is out of range for a tensor of rank 2; use -2 "
                                "to 1 ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(x.size(2), Contains("test_tensor.cpp:"), ShapeError);
}

TEST_CASE("an undefined tensor only says so") {
  const Tensor none;
  CHECK(!none.defined());
  CHECK(none.str() == "undefined");
  Tensor given = ones({3});
  const Tensor taken = std::move(given);
  for (Tensor x : {none, given}) {  // NOLINT(bugprone-use-after-move)
    const auto says = [&](const char* call, auto f) {
      const std::string message = testing::error_of<ValueError>(f);
      CHECK(message.starts_with(std::string(call) +
                                ": this tensor is undefined: it was never given "
                                "a value, or was moved from (" __FILE__ ":"));
    };
    says("values", [&] { x.values<float>(); });
    says("edit", [&] { x.edit<float>(); });
    says("item", [&] { x.item(); });
    says("at", [&] { x.at({0}); });
    says("to_vector", [&] { x.to_vector(); });
    says("to", [&] { x.to(x.dtype()); });
  }
  CHECK_THROWS_WITH_AS(tanh(none), Contains("tanh: x is undefined: it was never given a value"),
                       ValueError);
}

TEST_CASE("handles share a buffer until one is edited") {
  Tensor a = tensor({3}, {1, 2, 3});
  const Tensor b = a;
  CHECK(a.buffer().shares(b.buffer()));
  a.edit<float>()[0] = 9;
  CHECK(!a.buffer().shares(b.buffer()));
  CHECK(a.to_vector() == std::vector<double>{9, 2, 3});
  CHECK(b.to_vector() == std::vector<double>{1, 2, 3});
  const void* place = a.buffer().data();
  a.edit<float>()[1] = 8;  // not shared: in-place
  CHECK(a.buffer().data() == place);
  CHECK(a.detach().buffer().shares(a.buffer()));
}

TEST_CASE("an edited tensor is no longer recorded") {
  Tape tape;
  Tensor x = tape.watch(tensor({2}, {1, 2}));
  const Tensor y = square(x);
  x.edit<float>()[0] = 5;
  CHECK(x.trace().generation == 0);
  CHECK(tape.gradient(sum(y), {y})[0].to_vector() == std::vector<double>{1, 1});
}

TEST_CASE("the tape keeps the values it recorded when a handle is edited") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2}, {1, 2}));
  Tensor c = tensor({2}, {3, 4});
  const Tensor y = sum(x * c);
  c.edit<float>()[0] = 100;
  CHECK(tape.gradient(y, {x})[0].to_vector() == std::vector<double>{3, 4});
}

TEST_CASE("conversion rounds to nearest and is not recorded") {
  Tape tape;
  const Tensor x = tape.watch(tensor({3}, {0.1, -1.6, 2.5}, f64));
  CHECK(x.to(i32).to_vector() == std::vector<double>{0, -2, 2});
  CHECK(x.to(f32).trace().generation == 0);
  CHECK(x.to(f64).trace().generation == 0);
  CHECK(x.to(f64).buffer().shares(x.buffer()));
}

TEST_CASE("numbers in expressions take the dtype of the tensor") {
  CHECK((2 * ones({2}, f64)).dtype() == f64);
  CHECK((1 - ones({2})).dtype() == f32);
  CHECK((3 * tensor({2}, {1, 2}, i32)).to_vector() == std::vector<double>{3, 6});
  CHECK_THROWS_WITH_AS(0.5 * tensor({2}, {1, 2}, i32),
                       Contains("the number 0.5 cannot be an operand of an i32 tensor; convert the "
                                "tensor with to() ("),
                       DTypeError);
  CHECK_THROWS_AS(mean(tensor({2}, {1, 2}, i32)), DTypeError);
}

TEST_CASE("functions name the axis that is out of range and the call") {
  const Tensor x = zeros({2, 3});
  CHECK_THROWS_WITH_AS(softmax(x, 2), Contains("softmax: axis 2 is out of range"), ShapeError);
  CHECK_THROWS_WITH_AS(sum(x, {0, -3}), Contains("sum: axis -3 is out of range"), ShapeError);
  CHECK_THROWS_WITH_AS(flip(x, 5), Contains("test_tensor.cpp:"), ShapeError);
  CHECK_THROWS_WITH_AS(softmax(scalar(1)), Contains("a tensor of rank 0, which has no axes"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(split(x, 2, 1),
                       Contains("split: axis 1 of shape [2, 3] has 3 elements, not a "
                                "multiple of 2 ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(stack(std::vector<Tensor>{}),
                       Contains("stack: inputs is empty; there is nothing to join"), ValueError);
  CHECK_THROWS_WITH_AS(slice(x, 1, 2, 5),
                       Contains("slice: elements 2 to 5 of axis 1 do not exist; x is f32 [2, 3] ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(reshape(x, {4, -1}),
                       Contains("reshape: 6 elements cannot take shape [4, -1]"), ShapeError);
}

TEST_CASE("values out of range name the op and the call") {
  const Tensor table = zeros({3, 2}), rows = tensor({2}, {1, 3}, i32);
  CHECK_THROWS_WITH_AS(
      gather_rows(table, rows),
      Contains("gather_rows: row 3 at position 1 is not among the 3 rows (0 to 2) ("), ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(zeros({2, 3}), rows),
                       Contains("cross_entropy: target 3 at position 1 is not among the 3 classes"),
                       ValueError);
  Rng rng(1);
  CHECK_THROWS_WITH_AS(dropout(table, 1, rng),
                       Contains("dropout: the rate must be in [0, 1), not 1 ("), ValueError);
  CHECK(rng.state().position == 0);
}

TEST_CASE("the pool reuses released blocks") {
  pool::trim();
  CHECK(pool::statistics().cached_bytes == 0);
  const void* place = nullptr;
  {
    const Tensor x = zeros({1000});
    place = x.buffer().data();
  }
  CHECK(pool::statistics().cached_bytes >= 4000);
  const std::size_t asked = pool::statistics().heap_allocations;
  const Tensor y = zeros({1000});
  CHECK(y.buffer().data() == place);
  CHECK(pool::statistics().heap_allocations == asked);
}

TEST_CASE("a tensor may be released by another thread") {
  pool::trim();
  Tensor x = ones({1000});
  std::thread([y = std::move(x)]() mutable {
    CHECK(y.size() == 1000);
    y = Tensor();
    CHECK(pool::statistics().cached_bytes == 0);
  }).join();
  CHECK(pool::statistics().cached_bytes >= 4000);
}

TEST_CASE("numbers out of the range of i32 are refused") {
  CHECK(tensor({3}, {-2147483648.0, 2147483647.0, 2.5}, f64).to(i32).to_vector() ==
        std::vector<double>{-2147483648.0, 2147483647.0, 2});
  for (const double number : {2147483648.0, -2147483649.0, 1e300, std::nan("")})
    CHECK_THROWS_AS((void)scalar(number, f64).to(i32), ValueError);
  const Tensor big = scalar(1e300, f64);
  CHECK_THROWS_WITH_AS((void)big.to(i32),
                       Contains("to: 1e+300 cannot become an i32 (" __FILE__ ":"), ValueError);
  CHECK_THROWS_WITH_AS((void)full({2}, 3e9, i32),
                       Contains("full: 3000000000 cannot become an i32 (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_WITH_AS((void)full({1}, 2.7, i32),
                       Contains("full: 2.7 cannot become an i32 (" __FILE__ ":"), ValueError);
  CHECK_THROWS_WITH_AS((void)scalar(0.5, i32), Contains("scalar: 0.5 cannot become an i32 ("),
                       ValueError);
  CHECK_THROWS_WITH_AS((void)tensor({2}, {1, 2.6}, i32),
                       Contains("tensor: 2.6 cannot become an i32 (" __FILE__ ":"), ValueError);
  CHECK_THROWS_AS((void)tensor({1}, std::vector<float>{0.5f}, i32), ValueError);
  CHECK_THROWS_AS((void)tensor({1}, std::vector<Index>{Index{1} << 31}), ValueError);
}
