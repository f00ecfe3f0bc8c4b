// The gradients of softmax, its logarithm and the losses, where they are small differences.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include <reel/reel.h>

using namespace reel;

namespace {

using Values = std::vector<double>;
using Function = std::function<Tensor(const Tensor&)>;

Tensor vector(const Values& numbers, DType dtype = f32) {
  return tensor({static_cast<Index>(numbers.size())}, numbers, dtype);
}

Tensor gradient(const Function& f, const Tensor& at, bool graph = false) {
  Tape tape;
  const Tensor x = tape.watch(at);
  return tape.gradient(f(x), {x}, {.create_graph = graph})[0].detach();
}

// A row of the Hessian.
Tensor hessian_row(const Function& f, const Tensor& at, int row) {
  Tape tape;
  const Tensor x = tape.watch(at);
  const Tensor g = tape.gradient(f(x), {x}, {.create_graph = true})[0];
  return tape.gradient(select(g, 0, row), {x})[0];
}

void check_close(const Tensor& found, const Values& expected) {
  REQUIRE(found.size() == static_cast<Index>(expected.size()));
  const double error = found.dtype() == f32 ? 3e-6 : 1e-13;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CAPTURE(found.to_vector()[i]);
    CAPTURE(expected[i]);
    if (std::isfinite(expected[i]))
      CHECK(std::abs(found.to_vector()[i] - expected[i]) <= error * std::abs(expected[i]));
    else
      CHECK(found.to_vector()[i] == expected[i]);
  }
}

// As a kernel, and as a graph.
void check_gradient(const Function& f, const Tensor& x, const Values& expected) {
  CAPTURE(name_of(x.dtype()));
  for (const bool graph : {false, true}) {
    CAPTURE(graph);
    check_close(gradient(f, x, graph), expected);
  }
}

Tensor first(const Tensor& x) { return select(x, 0, 0); }

struct Case {
  DType dtype;
  double x;
  double others() const { return std::exp(-x); }  // the odds of the class that is x below
  double slope() const { return others() / ((1 + others()) * (1 + others())); }
};
const Case cases[] = {{f32, 20}, {f64, 40}};

}  // namespace

TEST_CASE("a gradient of softmax is not lost where a share rounds to 1") {
  for (const Case& c : cases) {
    const double q = c.slope(), p = c.others() / (1 + c.others());
    check_gradient([](const Tensor& x) { return first(softmax(x)); }, vector({0, -c.x}, c.dtype),
                   {q, -q});
    check_gradient([](const Tensor& x) { return first(softmax(x)); }, vector({-c.x, 0}, c.dtype),
                   {q, -q});
    const Tensor x = vector({c.x, 0}, c.dtype), target = full({}, 0, i32);
    const Tensor share = vector({1, 0}, c.dtype), weights = vector({1.25, 0.75}, c.dtype);
    check_gradient([](const Tensor& x) { return first(log_softmax(x)); }, x, {p, -p});
    check_gradient([&](const Tensor& x) { return nll(log_softmax(x), target); }, x, {-p, p});
    check_gradient([&](const Tensor& x) { return cross_entropy(x, target); }, x, {-p, p});
    check_gradient([&](const Tensor& x) { return cross_entropy(x, share); }, x, {-p, p});
    check_gradient([&](const Tensor& x) { return kl_div(log_softmax(x), share); }, x, {-p, p});
    check_gradient([&](const Tensor& x) { return sum(softmax(x) * weights); }, x, {q / 2, -q / 2});
  }
}

TEST_CASE("a gradient of softmax along a leading axis, in columns") {
  const double q = cases[0].slope();
  const Tensor x = tensor({2, 3}, Values{0, -20, 0, -20, 0, 0});
  check_gradient([](const Tensor& x) { return sum(first(softmax(x, 0))); }, x,
                 {q, q, 0.25, -q, -q, -0.25});
  const double p = cases[0].others() / (1 + cases[0].others());
  check_gradient([](const Tensor& x) { return sum(first(log_softmax(x, 0))); }, x,
                 {p, 1 - p, 0.5, -p, p - 1, -0.5});
}

TEST_CASE("gradients of softmax in many columns are those in rows") {
  constexpr Index lines = 150, size = 21;  // more columns than a block has
  Rng rng(1);
  const Tensor seed = rng.normal({lines, size}), x = 10 * rng.normal({lines, size});
  const auto gradient_in = [&](const Function& f, bool columns) {
    const auto turned = [&](const Tensor& y) { return columns ? transpose(y) : y; };
    return gradient([&](const Tensor& x) { return sum(seed * turned(f(turned(x)))); }, x)
        .to_vector();
  };
  const auto check = [&](const char* name, const Function& in_rows, const Function& in_columns) {
    CAPTURE(name);
    const Values rows = gradient_in(in_rows, false), columns = gradient_in(in_columns, true);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      CAPTURE(i);
      CHECK(std::abs(rows[i] - columns[i]) <= 3e-5 * std::abs(rows[i]) + 1e-12);
    }
  };
  check(
      "softmax", [](const Tensor& x) { return softmax(x, 1); },
      [](const Tensor& x) { return softmax(x, 0); });
  check(
      "log_softmax", [](const Tensor& x) { return log_softmax(x, 1); },
      [](const Tensor& x) { return log_softmax(x, 0); });
}

TEST_CASE("second derivatives of a normaliser are not lost where a share rounds to 1") {
  for (const Case& c : cases) {
    const double q = c.slope(), odds = c.others();
    const double third = q * (1 - odds) / (1 + odds);
    const Tensor x = vector({c.x, 0}, c.dtype), target = full({}, 0, i32);
    const Tensor share = vector({1, 0}, c.dtype);
    const std::vector<Function> normalisers{
        [](const Tensor& x) { return logsumexp(x); },
        [](const Tensor& x) { return -first(log_softmax(x)); },
        [&](const Tensor& x) { return cross_entropy(x, target); },
        [&](const Tensor& x) { return cross_entropy(x, share); },
        [&](const Tensor& x) { return nll(log_softmax(x), target); },
        [&](const Tensor& x) { return kl_div(log_softmax(x), share); }};
    for (const Function& f : normalisers) {
      check_close(hessian_row(f, x, 0), {q, -q});
      check_close(hessian_row(f, x, 1), {-q, q});
    }
    const Function share_of_first = [](const Tensor& x) { return first(softmax(x)); };
    check_close(hessian_row(share_of_first, x, 0), {-third, third});
    check_close(hessian_row(share_of_first, x, 1), {third, -third});
  }
}

TEST_CASE("logsumexp over several axes has the second derivative of one over all") {
  const Tensor x = tensor({2, 2}, Values{20, 0, 0, 0});
  const double p = std::exp(-20.0) / (1 + 3 * std::exp(-20.0));
  Tape tape;
  const Tensor v = tape.watch(x);
  const Tensor g = tape.gradient(logsumexp(v), {v}, {.create_graph = true})[0];
  check_close(tape.gradient(first(reshape(g, {4})), {v})[0],
              {(1 - 3 * p) * 3 * p, -p * (1 - 3 * p), -p * (1 - 3 * p), -p * (1 - 3 * p)});
}

TEST_CASE("gradients of losses at equal largest logits and with smoothing") {
  const double odds = std::exp(-20.0);
  const Tensor halves = vector({0.5, 0.5, 0});
  const double p = odds / (2 + odds);
  check_close(
      gradient([&](const Tensor& x) { return cross_entropy(x, halves); }, vector({20, 20, 0})),
      {-p / 2, -p / 2, p});
  const Tensor class_weights = vector({0, 1}), target = full({}, 1, i32);
  // (1 - e + e / V) c ((p - 1) at the target, p elsewhere)
  const double smoothed = 0.75 * odds / (1 + odds);
  check_gradient(
      [&](const Tensor& x) {
        return cross_entropy(x, target, {.class_weights = class_weights, .label_smoothing = 0.5});
      },
      vector({0, 20}), {smoothed, -smoothed});
}

TEST_CASE("sums of cross_entropy over many classes or rows are accurate") {
  const auto total = [](const Tensor& x) { return sum(abs(x).to(f64)).item(); };
  for (const double q : {0.1, 1e-6}) {
    const Tensor targets = full({1, 1'000'000}, q);
    CHECK(total(gradient([&](const Tensor& x) { return cross_entropy(x, targets); },
                         zeros({1, 1'000'000}))) == 0);
  }
  const Tensor logits = zeros({1, 1'000'000}), targets = full({1, 1'000'000}, 0.1);
  const auto f = [&](const Tensor& w) {
    return cross_entropy(logits, targets, {.weights = w, .reduction = LossReduction::sum});
  };
  const double expected = 1e6 * static_cast<double>(0.1F) * std::log(1e6);
  check_close(gradient(f, ones({1})), {expected});

  const Index rows = 500'000;
  const Tensor even = full({rows, 2}, 0.5), flat = zeros({rows, 2});
  const auto of_classes = [&](const Tensor& c) {
    return 0.1 * cross_entropy(flat, even, {.class_weights = c, .reduction = LossReduction::sum});
  };
  const double each = 0.1 * static_cast<double>(rows) * 0.5 * std::log(2.0);
  check_close(gradient(of_classes, ones({2})), {each, each});
  const Function of_weighted = [&](const Tensor& c) {
    return cross_entropy(
        flat, even,
        {.weights = full({rows}, 0.1), .class_weights = c, .reduction = LossReduction::sum});
  };
  check_close(gradient(of_weighted, ones({2})), {each, each});
}

TEST_CASE("soft cross_entropy of a difference that a float cannot hold") {
  const Tensor targets = vector({1e-10, 1});
  CHECK(cross_entropy(vector({-3e38, 3e38}), targets).item() == doctest::Approx(6e28));
}

TEST_CASE("a weight of 0 has the gradient 0 where the loss is not finite") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor x = vector({1, nan}), zero = vector({0, 0});
  const Tensor rows = tensor({2, 2}, Values{1, 2, nan, 1}), shares = full({2, 2}, 0.5);
  const Tensor classes = tensor({2}, std::vector<int>{0, 0});
  const std::vector<Function> losses{
      [&](const Tensor& w) { return l1(x, zero, {.weights = w}); },
      [&](const Tensor& w) { return mse(x, zero, {.weights = w}); },
      [&](const Tensor& w) { return huber(x, zero, 1, {.weights = w}); },
      [&](const Tensor& w) { return pinball(x, zero, 0.3, {.weights = w}); },
      [&](const Tensor& w) { return bce_with_logits(x, zero, {.weights = w}); },
      [&](const Tensor& w) { return kl_div(rows, shares, {.weights = w}); },
      [&](const Tensor& w) { return nll(rows, classes, {.weights = w}); },
      [&](const Tensor& w) { return cross_entropy(rows, shares, {.weights = w}); },
      [&](const Tensor& w) { return cross_entropy(rows, classes, {.weights = w}); },
      [&](const Tensor& w) {
        return cross_entropy(rows, classes, {.weights = w, .label_smoothing = 0.1});
      }};
  for (std::size_t i = 0; i < losses.size(); ++i) {
    CAPTURE(i);
    for (const bool graph : {false, true}) {
      CAPTURE(graph);
      const Tensor g = gradient(losses[i], vector({1, 0}), graph);
      CHECK(std::abs(g.at({0})) < 1e-7);  // the loss minus the mean, which is the same
      CHECK(g.at({1}) == 0);
    }
  }
  // A finite loss is what the weight would add.
  check_gradient(
      [&](const Tensor& w) {
        return mse(vector({1, 3}), zero, {.weights = w});
      },
      vector({1, 0}), {0, 8});
}
