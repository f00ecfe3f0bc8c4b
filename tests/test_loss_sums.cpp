// Losses as sums: what a mean divides by, and sums of nothing.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;

namespace {

constexpr auto as_sum = LossReduction::sum;

Tensor draw(const Shape& shape, std::uint64_t seed, DType dtype = f64) {
  return Rng(seed).normal(shape, 0, 1, dtype);
}
Tensor positive(const Shape& shape, std::uint64_t seed) { return exp(draw(shape, seed)); }

const Tensor scores = draw({2, 3, 4}, 1), classes = tensor({2, 3}, {3, 0, 2, 2, 1, 0}, i32);

// The losses of a prediction x, with the targets and options of each.
struct Pointwise {
  const char* name;
  std::function<Tensor(const Tensor&, const Tensor&, const LossOptions&)> loss;
};
const std::vector<Pointwise> pointwise{
    {"mse", [](const Tensor& x, const Tensor& t, const LossOptions& o) { return mse(x, t, o); }},
    {"l1", [](const Tensor& x, const Tensor& t, const LossOptions& o) { return l1(x, t, o); }},
    {"huber",
     [](const Tensor& x, const Tensor& t, const LossOptions& o) { return huber(x, t, 0.5, o); }},
    {"pinball",
     [](const Tensor& x, const Tensor& t, const LossOptions& o) { return pinball(x, t, 0.3, o); }},
    {"bce_with_logits",
     [](const Tensor& x, const Tensor& t, const LossOptions& o) {
       return bce_with_logits(
           x, t, {.weights = o.weights, .positive_weight = 3, .reduction = o.reduction});
     }},
    {"kl_div",
     [](const Tensor& x, const Tensor& t, const LossOptions& o) { return kl_div(x, t, o); }},
};

// The sum is the mean times `count`, and so is its gradient.
template <class Loss>
void check_sum(Loss loss, const Tensor& x, double count) {
  Tape tape;
  const Tensor w = tape.watch(x);
  const Tensor mean = loss(w, LossReduction::mean), sum = loss(w, as_sum);
  CHECK(sum.item() == doctest::Approx(count * mean.item()).epsilon(1e-13));
  const auto of_mean = tape.gradient(mean, {w}, {.keep = true})[0].to_vector();
  const auto of_sum = tape.gradient(sum, {w})[0].to_vector();
  for (std::size_t i = 0; i < of_sum.size(); ++i)
    CHECK(std::abs(of_sum[i] - count * of_mean[i]) < 1e-13);
}

// The loss is 0, and so is every number of its gradient.
template <class Loss>
void check_nothing(Loss loss, const Tensor& x) {
  Tape tape;
  const Tensor w = tape.watch(x);
  const Tensor nothing = loss(w);
  CHECK(nothing.shape() == Shape{});
  CHECK(nothing.item() == 0);
  const Tensor gradient = tape.gradient(nothing, {w})[0];
  CHECK(gradient.shape() == x.shape());
  for (const double g : gradient.to_vector()) CHECK(g == 0);
}

using ClassLoss = Tensor (*)(const Tensor&, const Tensor&, const CrossEntropyOptions&, Site);
const std::pair<const char*, ClassLoss> class_losses[] = {{"cross_entropy", cross_entropy},
                                                          {"nll", nll}};

}  // namespace

TEST_CASE("a sum over classes is the mean times the weights that count") {
  const Tensor weights = tensor({2, 3}, {1, 0.5, 0, 2, 3, 0.25}, f64);
  const Tensor of_classes = tensor({4}, {0.5, 1, 2, 4}, f64);
  for (const auto& item : class_losses) {
    const ClassLoss loss = item.second;
    const std::string name = item.first;
    CAPTURE(name);
    for (const double smoothing : {0.0, 0.25, 1.0}) {
      CAPTURE(smoothing);
      const auto check = [&](CrossEntropyOptions options, double count) {
        options.label_smoothing = smoothing;
        check_sum(
            [&](const Tensor& x, LossReduction reduction) {
              options.reduction = reduction;
              return loss(x, classes, options, {});
            },
            scores, count);
      };
      check({}, 6);
      check({.weights = weights}, 6.75);
      // The classes 3 0 2 2 1 0 have the weights 4, 0.5, 2, 2, 1, 0.5.
      check({.class_weights = of_classes}, 10);
      check({.weights = weights, .class_weights = of_classes}, 4 + 0.25 + 0 + 4 + 3 + 0.125);
      check({.ignore_index = 2}, 4);
      check({.weights = weights, .class_weights = of_classes, .ignore_index = 2},
            4 + 0.25 + 3 + 0.125);
    }
  }
}

TEST_CASE("a sum over probabilities is the mean times the weights of the positions") {
  const Tensor targets = softmax(draw({2, 3, 4}, 2));
  const Tensor weights = tensor({2, 3}, {1, 0.5, 0, 2, 3, 0.25}, f64);
  for (const double smoothing : {0.0, 0.25, 1.0})
    for (const bool weighted : {false, true})
      check_sum(
          [&](const Tensor& x, LossReduction reduction) {
            return cross_entropy(x, targets,
                                 {.weights = weighted ? weights : Tensor(),
                                  .class_weights = tensor({4}, {0.5, 1, 2, 4}, f64),
                                  .label_smoothing = smoothing,
                                  .reduction = reduction});
          },
          scores, weighted ? 6.75 : 6);
}

TEST_CASE("a sum over elements is the mean times the weights that lead to them") {
  const Tensor targets = positive({2, 3, 4}, 3);
  for (const Pointwise& item : pointwise) {
    const std::string name = item.name;
    CAPTURE(name);
    const double row = name == "kl_div" ? 1 : 4;  // its positions are rows
    const auto check = [&](const Tensor& weights, double count) {
      check_sum(
          [&](const Tensor& x, LossReduction reduction) {
            return item.loss(x, targets, {.weights = weights, .reduction = reduction});
          },
          scores, count * row);
    };
    check({}, 6);
    check(scalar(0.5, f64), 3);
    check(tensor({2}, {1, 0.25}, f64), 3.75);
    check(tensor({2, 3}, {1, 0.5, 0, 2, 3, 0.25}, f64), 6.75);
    if (name != "kl_div") check(full({2, 3, 4}, 0.125, f64), 24 * 0.125 / row);
  }
}

TEST_CASE("a sum of nothing is 0, and so is its gradient") {
  for (const DType dtype : {f32, f64}) {
    const Tensor x = draw({3, 4}, 4, dtype), none = zeros({0, 4}, dtype), zero = zeros({3}, dtype);
    const Tensor t = tensor({3}, {1, 2, 2}, i32), no_t = zeros({0}, i32);
    for (const auto& item : class_losses) {
      const ClassLoss loss = item.second;
      const std::string name = item.first;
      CAPTURE(name);
      for (const double smoothing : {0.0, 0.25}) {
        const auto check = [&](const Tensor& w, const Tensor& targets,
                               CrossEntropyOptions options) {
          options.label_smoothing = smoothing;
          options.reduction = as_sum;
          check_nothing([&](const Tensor& y) { return loss(y, targets, options, {}); }, w);
        };
        check(none, no_t, {});
        check(x, t, {.weights = zero});
        check(x, t, {.class_weights = zeros({4}, dtype)});
        check(x, full({3}, -100, i32), {.ignore_index = -100});
      }
    }
    const auto soft = [&](const Tensor& y, const CrossEntropyOptions& options) {
      return cross_entropy(y, full(y.shape(), 0.25, dtype), options);
    };
    check_nothing([&](const Tensor& y) { return soft(y, {.reduction = as_sum}); }, none);
    check_nothing([&](const Tensor& y) { return soft(y, {.weights = zero, .reduction = as_sum}); },
                  x);
    check_nothing(
        [&](const Tensor& y) {
          return soft(y, {.class_weights = zeros({4}, dtype), .reduction = as_sum});
        },
        x);
    for (const Pointwise& item : pointwise) {
      const std::string name = item.name;
      CAPTURE(name);
      const auto loss = [&](const Tensor& y, const Tensor& weights) {
        return item.loss(y, full(y.shape(), 0.25, dtype),
                         {.weights = weights, .reduction = as_sum});
      };
      check_nothing([&](const Tensor& y) { return loss(y, {}); }, none);
      check_nothing([&](const Tensor& y) { return loss(y, zeros({0}, dtype)); }, none);
      check_nothing([&](const Tensor& y) { return loss(y, zero); }, x);
      check_nothing([&](const Tensor& y) { return loss(y, scalar(0, dtype)); }, x);
    }
  }
}

TEST_CASE("every mean of nothing is an error that says so") {
  const Tensor x = draw({3, 4}, 4), none = zeros({0, 4}, f64), zero = zeros({3}, f64);
  const Tensor t = tensor({3}, {1, 2, 2}, i32);
  for (const auto& item : class_losses) {
    const ClassLoss loss = item.second;
    const std::string message = std::string(item.first) + ": there is nothing to average";
    const auto text = Contains(message.c_str());
    CHECK_THROWS_WITH_AS(loss(none, zeros({0}, i32), {}, {}), text, ValueError);
    CHECK_THROWS_WITH_AS(loss(x, t, {.weights = zero}, {}), text, ValueError);
    CHECK_THROWS_WITH_AS(loss(x, t, {.class_weights = zeros({4}, f64)}, {}), text, ValueError);
    CHECK_THROWS_WITH_AS(
        loss(x, t, {.weights = tensor({3}, {1, 0, 0}, f64), .ignore_index = 1}, {}), text,
        ValueError);
  }
  for (const Pointwise& item : pointwise) {
    const std::string message = std::string(item.name) + ": there is nothing to average";
    const auto text = Contains(message.c_str());
    CHECK_THROWS_WITH_AS(item.loss(none, none, {}), text, ValueError);
    CHECK_THROWS_WITH_AS(item.loss(x, x, {.weights = zero}), text, ValueError);
  }
}

TEST_CASE("without classes there is no loss, be it a sum or a mean") {
  const Tensor x = zeros({3, 0}, f64);
  for (const LossReduction reduction : {LossReduction::mean, as_sum}) {
    CHECK_THROWS_WITH_AS(cross_entropy(x, zeros({3}, i32), {.reduction = reduction}),
                         Contains("cross_entropy: there are no classes; logits is f64 [3, 0]"),
                         ValueError);
    CHECK_THROWS_WITH_AS(nll(x, zeros({3}, i32), {.reduction = reduction}),
                         Contains("nll: there are no classes"), ValueError);
    CHECK_THROWS_WITH_AS(cross_entropy(x, x, {.reduction = reduction}),
                         Contains("there are no classes"), ValueError);
    CHECK_THROWS_WITH_AS(kl_div(x, x, {.reduction = reduction}),
                         Contains("kl_div: there are no classes"), ValueError);
  }
}
