#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/embedding.h>
#include <reel/nn/linear.h>
#include <reel/optim/clip.h>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "optimizers.h"

// Sums of many numbers in f32 are accurate to six digits. The numbers are 0.1, whose naive sum is
// wrong in the third.
using namespace reel;
using namespace reel::testing;

namespace {

constexpr Index many = 1000000;
constexpr double tenth = 0.1f;

void check_all(const Tensor& x, double value, double precision = 1e-6) {
  for (double number : x.to_vector()) {
    CAPTURE(number);
    CAPTURE(value);
    REQUIRE(std::abs(number - value) <= precision * std::abs(value));
  }
}

Tensor tenths(const Shape& shape) { return full(shape, 0.1); }

}  // namespace

TEST_CASE("sums over any axes") {
  check_all(sum(tenths({many, 2}), 0), many * tenth);
  check_all(sum(tenths({2, many}), 1), many * tenth);
  check_all(sum(tenths({many})), many * tenth);
  check_all(sum(tenths({many, 1}), 0, true), many * tenth);
  check_all(sum(tenths({100, 3, 100, 100}), {0, 2}), 10000 * tenth);
  check_all(sum(tenths({100, 3, 100, 100}), {0, 2, 3}), many * tenth);
  check_all(sum(tenths({3, 100, 2, 1000}), {1, 3}), 100000 * tenth);
  check_all(sum_to(tenths({1000, 1000, 2}), {2}), many * tenth);
  check_all(sum_to(tenths({1000, 2, 1000}), {2, 1}), many * tenth);
  check_all(mean(tenths({many, 2}), 0), tenth);
  check_all(sum(full({many, 3}, 1, i32), 0).to(f64), many);
  CHECK(sum(zeros({0, 3}), 0).to_vector() == std::vector<double>{0, 0, 0});
}

TEST_CASE("a mean is finite where the sum is not, and so are moments") {
  check_all(mean(full({4}, 3e38)), 3e38);
  const Tensor x = concat({full({many / 2, 1}, 1.1), full({many / 2, 1}, 0.9)}, 0);
  check_all(var(x, 0), 0.01);
  check_all(reel::std(x, 0), 0.1);
  check_all(norm(tenths({many, 2}), {0}), std::sqrt(many * tenth * tenth));
}

TEST_CASE("a sum is finite where the sums of its parts are not") {
  check_all(mean(full({128}, 3e38)), 3e38);
  check_all(mean(full({8, 2}, 1e38), 0), 1e38);
  check_all(mean(full({3, 128, 2}, 3e38), {0, 2}), 3e38);
  const Tensor up = full({64, 2}, 3e38), balanced = concat({up, neg(up)}, 0);
  check_all(sum(balanced, 0), 0);
  check_all(sum(reshape(balanced, {256})), 0);
  check_all(sum_to(balanced, {2}), 0);
  check_all(scatter_add_rows(balanced, zeros({128}, i32), 1), 0);
  check_all(reel::std(concat({full({64}, 1e38), full({64}, -1e38)}, 0)), 1e38);
  // Other columns keep their sums to the last bit.
  const Tensor tenth = tenths({128, 1}), both = concat({tenth, slice(balanced, 1, 0, 1)}, 1);
  CHECK(same_bits(slice(sum(both, 0), 0, 0, 1), sum(tenth, 0)));

  const Tensor large = tensor({3}, {1.5e308, 1.5e308, -1.5e308}, f64);
  check_all(sum(large), 1.5e308);
  check_all(mean(slice(large, 0, 0, 2)), 1.5e308);
  check_all(mean(broadcast_to(full({1}, 1.5e308, f64), {9, 3}), 0), 1.5e308);
  check_all(sum(broadcast_to(reshape(large / 5, {3, 1, 1}), {3, 2, 5}), {0, 2}), 1.5e308);
  // What is infinite or not a number stays so.
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (DType dtype : {f32, f64}) {
    const Tensor x = concat({full({200}, 1, dtype), full({1}, infinity, dtype)}, 0);
    CHECK(sum(x).item() == infinity);
    CHECK(std::isnan(mean(concat({x, neg(x)}, 0)).item()));
    CHECK(sum(full({200}, dtype == f32 ? 3e38 : 1.5e308, dtype)).item() == infinity);
  }
}

TEST_CASE("a running sum") {
  const Tensor y = cumsum(tenths({2, many}), 1);
  check_all(slice(y, 1, many - 1, many), many * tenth);
  check_all(slice(y, 1, 499999, 500000), 0.5 * many * tenth);
  check_all(slice(cumsum(tenths({many, 2}), 0, true), 0, 0, 1), many * tenth);
}

TEST_CASE("what falls into one place") {
  check_all(scatter_along(tenths({2, many}), zeros({2, many}, i32), 1, 1), many * tenth);
  check_all(scatter_add_rows(tenths({many, 2}), zeros({many}, i32), 1), many * tenth);
}

TEST_CASE("products") {
  constexpr double of_blocks = 5e-6;  // each of which is one chain of 256 terms
  const Tensor a = tenths({2, many}), one = ones({many, 3});
  check_all(matmul(a, one), many * tenth, of_blocks);
  check_all(matmul(tenths({many, 2}), one, true), many * tenth, of_blocks);
  check_all(matmul(a, ones({3, many}), false, true), many * tenth, of_blocks);
  check_all(matmul(tenths({7, many / 4}), ones({many / 4, 40})), 0.25 * many * tenth, of_blocks);
  check_all(dot(tenths({many}), ones({many})), many * tenth, of_blocks);
  check_all(affine(a, ones({3, many}), full({3}, 1000)), many * tenth + 1000, of_blocks);
}

TEST_CASE("the sums of a long product do not depend on the number of threads") {
  const Tensor a = Rng(1).normal({130, 20000}), b = Rng(2).normal({20000, 70});
  const auto product = [&](int n) {
    const ThreadsScope some(n);
    return matmul(a, b);
  };
  const Tensor alone = product(1);
  for (int n : {2, 3, 4}) CHECK(same_bits(alone, product(n)));
  CHECK(same_bits(matmul(slice(a, 0, 5, 6), b), slice(alone, 0, 5, 6)));
}

TEST_CASE("gradients of biases and of what was broadcast") {
  const Params params(1);
  const nn::Linear linear(params / "linear", 1, 2);
  Tape tape;
  const Tensor shift = tape.watch(zeros({2}));
  const Tensor y = linear(ones({many, 1})) + shift;
  const Tensor scaled = sum(y * full({1}, 0.1));
  const Gradients gradients = tape.gradient(scaled, params, {.keep = true});
  check_all(gradients["linear.b"], many * tenth);
  check_all(gradients["linear.w"], many * tenth, 5e-6);
  check_all(tape.gradient(scaled, {shift})[0], many * tenth);
}

TEST_CASE("the gradient of a tensor that is used many times") {
  const auto gradient = [](auto f, Index size, bool graph = false) {
    Tape tape;
    const Tensor x = tape.watch(ones({size}));
    return tape.gradient(sum(f(x)), {x}, {.create_graph = graph})[0].detach();
  };
  constexpr Index uses = 100000;
  const auto loop = [](const Tensor& x) {
    Tensor y = zeros({2});
    for (Index i = 0; i < uses; ++i) y = y + x * 0.1;
    return y;
  };
  check_all(gradient(loop, 2), uses * tenth);
  check_all(gradient(loop, 2, true), uses * tenth);
  const auto copies = [](const Tensor& x) {
    return concat(Tensors(static_cast<std::size_t>(uses), x), 0) * 0.1;
  };
  check_all(gradient(copies, 2), uses * tenth);
  check_all(gradient(copies, 2, true), uses * tenth);
  // Parts that meet, and parts that do not.
  const auto part = [](const Tensor& x) {
    Tensor y = zeros({1});
    for (Index i = 0; i < uses; ++i) y = y + slice(x, 0, i % 3, i % 3 + 1) * 0.1;
    return y;
  };
  const Tensor g = gradient(part, 4);
  check_all(slice(g, 0, 0, 3), double(uses) / 3 * tenth, 1e-4);
  check_all(sum(g), uses * tenth);
  const auto steps = [](const Tensor& x) {
    Tensor y = zeros({1});
    for (Index i = 0; i < x.size(0); ++i) y = y + slice(x, 0, i, i + 1) * (0.1 * double(i + 1));
    return y + sum(x) * 0.5;
  };
  const std::vector<double> of_steps = gradient(steps, 500).to_vector();
  for (std::size_t i = 0; i < 500; ++i)
    CHECK(of_steps[i] == doctest::Approx(0.5 + 0.1 * double(i + 1)).epsilon(1e-6));
}

TEST_CASE("the second gradient of a tensor that is used many times") {
  constexpr Index uses = 1000;
  Tape tape;
  const Tensor x = tape.watch(ones({2}));
  Tensor y = zeros({2});
  for (Index i = 0; i < uses; ++i) y = y + square(x) * x * 0.1;
  const Tensor g = tape.gradient(sum(y), {x}, {.create_graph = true})[0];
  check_all(g, 3 * uses * tenth);
  check_all(tape.gradient(sum(g), {x})[0], 6 * uses * tenth);
}

TEST_CASE("gradients of an embedding") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 3, 2);
  Tape tape;
  const Tensor y = embed(full({many}, 1, i32));
  const Gradients gradients = tape.gradient(sum(y * full({1}, 0.1)), params);
  check_all(slice(gradients["embed.w"], 0, 1, 2), many * tenth);
  check_all(slice(gradients["embed.w"], 0, 2, 3), 0);
  // The order of the rows of a table, and rows without sources.
  const Tensor source = tensor({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(scatter_add_rows(source, tensor({4}, {4, 0, 4, 2}, i32), 5).to_vector() ==
        std::vector<double>{3, 4, 0, 0, 7, 8, 0, 0, 6, 8});
}

TEST_CASE("gradients of a normalised layer's gain and bias") {
  Tape tape;
  const Tensor gain = tape.watch(ones({2})), bias = tape.watch(zeros({2}));
  const Tensor x = broadcast_to(tensor({2}, {-1, 1}), {many, 2});
  const Tensor y = sum(layer_norm(x, gain, bias, 0) * full({1}, 0.1));
  const auto gradients = tape.gradient(y, {gain, bias});
  check_all(gradients[1], many * tenth);
  check_all(abs(gradients[0]), many * tenth);
}

TEST_CASE_TEMPLATE("gradients of a recurrent layer's bias", L, nn::Rnn, nn::Gru, nn::Lstm) {
  // One step of many rows: each contributes equally to the gradient.
  const auto gradient = [](Index rows, DType dtype) {
    const Params params(1, dtype);
    const L layer(params, 1, 2);
    Tape tape;
    return tape.gradient(sum(layer(ones({1, rows, 1}, dtype)).y), params)["b"].to_vector();
  };
  const std::vector<double> alone = gradient(1, f64), all = gradient(100000, f32);
  for (std::size_t i = 0; i < alone.size(); ++i)
    CHECK(all[i] == doctest::Approx(alone[i] * 100000).epsilon(3e-6));
  std::vector<float> sums(2);
  const std::vector<float> d(2 * many, 0.1f);
  kernels::column_sums(kernels::MatrixView<float>::row_major(d.data(), many, 2), sums.data());
  for (float sum : sums)
    CHECK(static_cast<double>(sum) == doctest::Approx(many * tenth).epsilon(1e-6));
}

TEST_CASE("norms of gradients") {
  const Params params(1);
  const Param w =
      params.create("w", {many}, [](Rng&, const Shape& shape, DType) { return tenths(shape); });
  Gradients gradients(params);
  gradients.set(*w.entry(), w.value());
  CHECK(gradients.norm() == doctest::Approx(std::sqrt(many * tenth * tenth)).epsilon(1e-12));
}
