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

TEST_CASE("the loss of a head and its gradients are those of two ops") {
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
        CHECK(distance(found.back(), expected.back()) < 2e-7);
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
  const auto peak_of = [](const Data& d, auto loss_of) {
    std::size_t bytes = 0;
    std::thread([&] {  // a thread has a pool of its own
      loss_and_gradients(d, {}, loss_of);
      bytes = pool::statistics().peak_bytes;
    })
        .join();
    return bytes;
  };
  const auto logits = [](const Data& d) {
    return static_cast<std::size_t>(d.x.size(0) * d.w.size(0)) * sizeof(float);
  };
  const Data large = data(1024, 32, 33'000), words = data(400, 20, 10'000);
  CHECK(peak_of(large, in_two_ops) > 2 * logits(large));
  CHECK(peak_of(large, fused) < logits(large) / 2);
  CHECK(peak_of(words, fused) < logits(words) * 3 / 4);  // of a step of a model of words
}

TEST_CASE("classes that are impossible, or the only possible one, in blocks of their own") {
  const double infinite = std::numeric_limits<double>::infinity();
  Data d = data(40, 5, 700, f64);
  std::vector<double> b(700, 0.25);
  std::fill(b.begin() + 256, b.begin() + 600, -infinite);  // a whole block and a part of one
  std::vector<std::int32_t> targets(40, 3);
  for (std::size_t r = 0; r < targets.size(); r += 2) targets[r] = 650;
  d.targets = tensor({40}, targets);
  for (const double smoothing : {0.0, 0.1})
    for (const double most : {0.0, 60.0}) {
      CAPTURE(smoothing);
      CAPTURE(most);
      b[650] = most;  // all but 1 of the sum of the shares
      if (smoothing != 0) std::fill(b.begin() + 256, b.begin() + 600, -20);
      d.b = tensor({700}, b, f64);
      const auto found = loss_and_gradients(d, {.label_smoothing = smoothing}, fused);
      const auto expected = loss_and_gradients(d, {.label_smoothing = smoothing}, in_two_ops);
      for (std::size_t i = 0; i < found.size(); ++i) CHECK(distance(found[i], expected[i]) < 1e-12);
    }
}

TEST_CASE("a tape that is kept gives the gradient of the loss of a head again") {
  const Data d = data(20, 5, 300);
  Tape tape;
  const std::vector<Tensor> sources = {tape.watch(d.x), tape.watch(d.w), tape.watch(d.b)};
  const Tensor loss = linear_cross_entropy(sources[0], sources[1], sources[2], d.targets);
  const auto first = tape.gradient(3 * loss, sources, {.keep = true});
  const auto second = tape.gradient(loss, sources);
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(same_bits(first[i], 3 * second[i]));
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
  CHECK(distance(head.cross_entropy(d.x, d.targets), cross_entropy(head(d.x), d.targets)) < 2e-7);
  CHECK_THROWS_WITH_AS(head.cross_entropy(zeros({6, 5}), d.targets),
                       doctest::Contains("in module head"), ShapeError);
}
