// The loss of a head whose logits never exist as a whole: beside the same in two ops.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <thread>

#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>
#include <reel/nn/linear.h>

#include "testing.h"

using namespace reel;
using reel::testing::same_bits;
using reel::testing::ThreadsScope;

namespace {

struct Data {
  Tensor x, w, b, targets, weights;
};

// Sizes of several chunks, with a last one that is shorter.
Data data(Index rows, Index features, Index classes, DType dtype = f32) {
  Rng rng(static_cast<std::uint64_t>(rows));
  std::vector<std::int32_t> targets(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < targets.size(); ++r)
    targets[r] = static_cast<std::int32_t>(static_cast<Index>(7 * r * r) % classes);
  return {rng.normal({rows, features}, 0, 1, dtype), rng.normal({classes, features}, 0, 1, dtype),
          rng.normal({classes}, 0, 1, dtype), tensor({rows}, targets),
          rng.uniform({rows}, 0.5, 2, dtype)};
}

Tensor in_two_ops(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& targets,
                  const LinearCrossEntropyOptions& options) {
  return cross_entropy(b.defined() ? affine(x, w, b) : matmul(x, w, false, true), targets,
                       {.weights = options.weights,
                        .label_smoothing = options.label_smoothing,
                        .ignore_index = options.ignore_index,
                        .reduction = options.reduction});
}

template <class Loss>
std::vector<Tensor> loss_and_gradients(const Data& d, LinearCrossEntropyOptions options,
                                       Loss loss_of) {
  Tape tape;
  std::vector<Tensor> sources = {tape.watch(d.x), tape.watch(d.w)};
  if (d.b.defined()) sources.push_back(tape.watch(d.b));
  const Tensor b = d.b.defined() ? sources.back() : Tensor();
  if (options.weights.defined()) {
    options.weights = tape.watch(d.weights);
    sources.push_back(options.weights);
  }
  const Tensor loss = loss_of(sources[0], sources[1], b, d.targets, options);
  std::vector<Tensor> results = tape.gradient(3 * loss, sources);
  results.push_back(loss.detach());
  return results;
}

double distance(const Tensor& a, const Tensor& b) {
  return (max(abs(a - b)) / max(abs(b))).to(f64).item();
}

const auto fused = [](const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& targets,
                      const LinearCrossEntropyOptions& options) {
  return linear_cross_entropy(x, w, b, targets, options);
};

}  // namespace

TEST_CASE("the loss of a head has the bits of two ops, and its gradients their numbers") {
  for (const auto& sizes : {std::array<Index, 3>{1100, 3, 5}, {300, 4, 33'000}, {7, 50, 900}}) {
    const Index rows = sizes[0], features = sizes[1], classes = sizes[2];
    for (const bool biased : {true, false})
      for (const int variant : {0, 1, 2, 3}) {
        CAPTURE(classes);
        CAPTURE(variant);
        Data d = data(rows, features, classes);
        if (!biased) d.b = {};
        LinearCrossEntropyOptions options;
        if (variant == 1) options = {.weights = d.weights, .ignore_index = 3};
        if (variant == 2) options = {.label_smoothing = 0.1};
        if (variant == 3) options.reduction = LossReduction::sum;
        const auto found = loss_and_gradients(d, options, fused);
        const auto expected = loss_and_gradients(d, options, in_two_ops);
        REQUIRE(found.size() == expected.size());
        CHECK(same_bits(found.back(), expected.back()));
        for (std::size_t i = 0; i < found.size(); ++i)
          CHECK(distance(found[i], expected[i]) < 2e-5);
        CHECK(same_bits(linear_cross_entropy(d.x, d.w, d.b, d.targets, options), found.back()));
      }
  }
}

TEST_CASE("the loss of a head has equal bits for any number of threads") {
  const Data d = data(300, 20, 33'000);
  std::vector<Tensor> expected;
  for (const int threads : {1, 2, 3, 7}) {
    const ThreadsScope scope(threads);
    const auto found = loss_and_gradients(d, {.label_smoothing = 0.1}, fused);
    if (expected.empty()) expected = found;
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(same_bits(found[i], expected[i]));
  }
}

TEST_CASE("the logits of a large vocabulary are not held") {
  const Index rows = 1024, features = 32, classes = 33'000;
  const Data d = data(rows, features, classes);
  const auto logits = static_cast<std::size_t>(rows * classes) * sizeof(float);
  const auto peak_of = [&](auto loss_of) {
    std::size_t bytes = 0;
    std::thread([&] {  // a thread has a pool of its own
      loss_and_gradients(d, {}, loss_of);
      bytes = pool::statistics().peak_bytes;
    })
        .join();
    return bytes;
  };
  CHECK(peak_of(in_two_ops) > 2 * logits);
  CHECK(peak_of(fused) < logits / 2);
}

TEST_CASE("rows that do not count contribute nothing, and mistakes are named") {
  const double infinite = std::numeric_limits<double>::infinity();
  const Tensor x = tensor({2, 1}, {1, 2}, f64), w = tensor({2, 1}, {1, -1}, f64);
  const Tensor b = tensor({2}, {0, -infinite}, f64);
  // The second class is impossible, which is no matter to the row with another target.
  const Tensor loss = linear_cross_entropy(x, w, b, tensor({2}, std::vector<std::int32_t>{0, 1}),
                                           {.weights = tensor({2}, {1, 0}, f64)});
  CHECK(loss.item() == 0);
  const Tensor targets = tensor({2}, std::vector<std::int32_t>{0, 1});
  CHECK_THROWS_WITH_AS(
      linear_cross_entropy(zeros({2, 3}, f64), w, b, targets),
      doctest::Contains("linear_cross_entropy: x has 3 features, but w takes 1; x is f64 [2, 3], "
                        "w is f64 [2, 1], b is f64 [2], targets is i32 [2] (" __FILE__ ":"),
      ShapeError);
  CHECK_THROWS_WITH_AS(linear_cross_entropy(x, w, zeros({3}, f64), targets),
                       doctest::Contains("w has 2 classes, but b is [3]"), ShapeError);
  CHECK_THROWS_AS(linear_cross_entropy(x, w, b, tensor({2}, std::vector<std::int32_t>{0, 2})),
                  ValueError);
  CHECK_THROWS_AS(linear_cross_entropy(x, w, b, targets, {.label_smoothing = 2}), ValueError);
  CHECK_THROWS_WITH_AS(
      linear_cross_entropy(x, w, b, targets, {.weights = zeros({2}, f64)}),
      doctest::Contains("linear_cross_entropy: there is nothing to average: the weights"),
      ValueError);
}

TEST_CASE("Linear::cross_entropy is that of its outputs") {
  const Params params(1);
  const nn::Linear head(params / "head", 4, 9);
  const Data d = data(6, 4, 9);
  CHECK(same_bits(head.cross_entropy(d.x, d.targets), cross_entropy(head(d.x), d.targets)));
  CHECK_THROWS_WITH_AS(head.cross_entropy(zeros({6, 5}), d.targets),
                       doctest::Contains("in module head"), ShapeError);
}
