#include <doctest/doctest.h>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/threads.h>
#include <reel/nn/attention/multi_head_attention.h>

#include <vector>

#include "testing.h"

using namespace reel;

namespace {

// All elements of some tensors.
std::vector<double> numbers(std::span<const Tensor> all) {
  std::vector<double> numbers;
  for (const Tensor& x : all) {
    const std::vector<double> values = x.to_vector();
    numbers.insert(numbers.end(), values.begin(), values.end());
  }
  return numbers;
}

// f() has the same bits on one, two and five threads.
template <class F>
void check_any_number_of_threads(F f) {
  const int before = threads();
  set_threads(1);
  const std::vector<double> expected = numbers(f());
  for (const int count : {2, 5}) {
    set_threads(count);
    CHECK(numbers(f()) == expected);
  }
  set_threads(before);
}

}  // namespace

TEST_CASE("products of a batch have the same bits on any number of threads") {
  Rng rng(1);
  // 40 products of 131,072 multiplications, enough for several threads.
  const Tensor a = rng.normal({8, 5, 64, 32}), b = rng.normal({8, 5, 32, 64});
  const Tensor shared = rng.normal({8, 1, 32, 64}), outer = rng.normal({5, 64, 32});
  check_any_number_of_threads([&] {
    return std::vector<Tensor>{matmul(a, b), matmul(a, a, true), matmul(a, a, false, true),
                               matmul(a, shared), matmul(outer, b)};
  });
}

TEST_CASE("each product of a batch is that of its two matrices, with threads") {
  Rng rng(2);
  const Tensor a = rng.normal({8, 1, 64, 32}), b = rng.normal({5, 32, 64});
  const Tensor all = matmul(a, b);
  REQUIRE(all.shape() == Shape{8, 5, 64, 64});
  for (Index i = 0; i < 8; ++i)
    for (Index j = 0; j < 5; ++j) {
      const Tensor one = matmul(select(select(a, 0, i), 0, 0), select(b, 0, j));
      CHECK(select(select(all, 0, i), 0, j).to_vector() == one.to_vector());
    }
}

TEST_CASE("softmax and its gradient have the same bits on any number of threads") {
  Rng rng(3);
  const Tensor x = rng.normal({7, 300, 60});
  for (const int axis : {0, 1, 2})
    check_any_number_of_threads([&] {
      Tape tape;
      const Tensor watched = tape.watch(x);
      const Tensor y = softmax(watched, axis), logs = log_softmax(watched, axis);
      std::vector<Tensor> all = tape.gradient(sum(square(y)) + sum(square(logs)), {watched});
      all.insert(all.end(), {y, logs});
      return all;
    });
}

TEST_CASE("attention has the same bits on any number of threads") {
  const Params params(1);
  const nn::MultiHeadAttention attention(params, 64, 8);
  const Tensor x = Rng(4).normal({40, 32, 64});
  check_any_number_of_threads([&] {
    Tape tape;
    const Tensor watched = tape.watch(x);
    const auto [context, weights] = attention(watched, attention.memory(watched), {.causal = true});
    std::vector<Tensor> all = tape.gradient(sum(square(context)) + sum(square(weights)), {watched});
    all.insert(all.end(), {context, weights});
    return all;
  });
}
