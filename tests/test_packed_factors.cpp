// Right factors that are packed once for many products: the same bits, and never stale.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <reel/autograd/engine/packed_factors.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/params.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/init.h>
#include <reel/nn/unroll.h>
#include <reel/optim/sgd.h>

#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

Tensor draw(const Shape& shape, std::uint64_t seed, DType dtype = f32) {
  return Rng(seed).normal(shape, 0, 1, dtype);
}

// Uses w in as many products as it takes for it to be kept.
Tensor third_product(const Tensor& x, const Tensor& w) {
  for (int i = 0; i < 2; ++i) static_cast<void>(matmul(x, w, false, true));
  return matmul(x, w, false, true);
}

}  // namespace

TEST_CASE("packed factors: products have the same bits, on any number of threads") {
  const testing::ThreadsScope restored;
  for (const DType dtype : {f32, f64})
    for (const Index rows : {1, 2, 3, 64})
      for (const Index outputs : {37, 512}) {
        const Index features = 130;
        const Tensor x = draw({rows, features}, 1, dtype), bias = draw({outputs}, 2, dtype);
        const Tensor w = draw({outputs, features}, 3, dtype), plain = transpose(w).copy();
        const auto all = [&] {
          return Tensors{matmul(x, w, false, true), matmul(x, plain), affine(x, w, bias)};
        };
        const Tensors expected = all();
        for (const int threads : {1, 2, 3}) {
          set_threads(threads);
          const PackedFactors packed;
          for (int i = 0; i < 4; ++i) {
            const Tensors products = all();
            for (std::size_t k = 0; k < products.size(); ++k)
              CHECK(same_bits(products[k], expected[k]));
          }
          CHECK_FALSE(w.buffer().unique());  // it is kept
        }
        CHECK(w.buffer().unique());
      }
}

TEST_CASE("packed factors: a parameter that changes is packed again") {
  const Params params(1);
  Param w = params.create("w", {40, 50}, nn::init::normal(1));
  const Tensor x = draw({8, 50}, 1);
  optim::Sgd sgd(params, {.learning_rate = 1});
  Gradients gradients(params);
  gradients.set(*w.entry(), draw({40, 50}, 2));
  const PackedFactors packed;
  const auto check = [&] {
    const Tensor copy = w.value().copy();  // another factor, used once
    CHECK(same_bits(matmul(x, w, false, true), matmul(x, copy, false, true)));
  };
  Tensor before = third_product(x, w);
  const auto change = [&](auto f) {
    f();
    const Tensor after = matmul(x, w, false, true);
    CHECK_FALSE(same_bits(after, before));
    check();
    before = third_product(x, w);
  };
  change([&] { sgd.step(gradients); });
  change([&] { w.set(draw({40, 50}, 3)); });
  change([&] { w.edit<float>()[7] += 1; });
  const std::span<float> numbers = w.edit<float>();
  before = third_product(x, w);
  change([&] { numbers[11] += 1; });  // which nothing announces
}

TEST_CASE("packed factors: temporary factors in the place of earlier ones") {
  const Tensor x = draw({4, 64}, 1);
  std::vector<Tensor> expected;
  const auto factor = [](std::uint64_t i) { return draw({64, 64}, 10 + i); };
  for (std::uint64_t i = 0; i < 50; ++i) expected.push_back(matmul(x, factor(i)));
  const PackedFactors packed;
  for (std::uint64_t i = 0; i < 50; ++i) CHECK(same_bits(matmul(x, factor(i)), expected[i]));
}

TEST_CASE("packed factors: few are kept, and none beyond the scope") {
  const Tensor x = draw({4, 64}, 1);
  std::vector<Tensor> factors;
  for (std::uint64_t i = 0; i < 40; ++i) factors.push_back(draw({64, 64}, 10 + i));
  const auto kept = [&] {
    return std::ranges::count_if(factors, [](const Tensor& w) { return !w.buffer().unique(); });
  };
  {
    const PackedFactors packed;
    for (const Tensor& w : factors) static_cast<void>(matmul(x, w));
    CHECK(kept() == 0);  // each was used once
    for (const Tensor& w : factors) third_product(x, w);
    CHECK(kept() == 16);
    {
      const PackedFactors inner;
      third_product(x, factors[0]);
    }
    CHECK(kept() == 16);
    CHECK_FALSE(factors[0].buffer().unique());
  }
  CHECK(kept() == 0);
}

TEST_CASE("packed factors: cells over a sequence see new weights, on two threads at once") {
  const Params params(1);
  const nn::Unroll<nn::LstmCell> layer(params, 48, 40);
  const Tensor x = draw({6, 5, 48}, 1);
  optim::Sgd sgd(params, {.learning_rate = 0.1});
  // The same without a scope: step by step.
  const auto by_steps = [&] {
    nn::LstmState state;
    Tensors outputs;
    for (Index t = 0; t < x.size(0); ++t) {
      auto [y, next] = layer.step(select(x, 0, t), state, nn::Eval{});
      outputs.push_back(y);
      state = std::move(next);
    }
    return stack(outputs);
  };
  for (int update = 0; update < 3; ++update) {
    Tensors results(2);
    std::vector<std::thread> threads;
    for (Tensor& result : results) threads.emplace_back([&] { result = layer(x).y; });
    for (std::thread& thread : threads) thread.join();
    const Tensor expected = by_steps();
    for (const Tensor& result : results) CHECK(same_bits(result, expected));
    Tape tape;
    sgd.step(tape.gradient(sum(square(layer(x).y)), params));
  }
}

TEST_CASE("packed factors: gradients in segments, and of gradients") {
  const Params params(1, f64);
  const nn::Unroll<nn::GruCell> layer(params, 40, 40);
  const Tensor start = draw({6, 3, 40}, 1, f64);
  const auto gradients = [&](Index segment, bool create_graph) {
    Tape tape;
    const Tensor x = tape.watch(start);
    const auto [y, last] = layer(x, {.segment = segment});
    const Tensor loss = sum(square(y));
    Tensor dx = tape.gradient(loss, {x}, {.create_graph = create_graph})[0];
    if (!create_graph) return dx;
    return tape.gradient(sum(dx * start), {x})[0];
  };
  const Tensor first = gradients(0, false);
  CHECK(max(abs(first - gradients(2, false))).item() < 1e-12 * max(abs(first)).item());
  // The derivative of the gradient along x, by differences.
  const Tensor second = gradients(0, true);
  constexpr double h = 1e-5;
  const auto projected = [&](double by) {
    Tensor to = start.copy();
    to.edit<double>()[5] += by;
    Tape tape;
    const Tensor x = tape.watch(to);
    const auto [y, last] = layer(x, {});
    return sum(tape.gradient(sum(square(y)), {x})[0] * start).item();
  };
  CHECK(second.to_vector()[5] ==
        doctest::Approx((projected(h) - projected(-h)) / (2 * h)).epsilon(1e-6));
}
