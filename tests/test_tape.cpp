#include <doctest/doctest.h>

#include <cmath>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/init.h>

#include "testing.h"

using namespace reel;

namespace {

Tensor filled_with_two(Rng&, const Shape& shape, DType dtype) { return full(shape, 2, dtype); }

// The derivatives of f at x, of orders 1 to n, each computed from the previous one.
template <class F>
std::vector<double> derivatives(F f, double at, int n) {
  Tape tape;
  const Tensor x = tape.watch(scalar(at, f64));
  std::vector<double> result;
  Tensor y = f(x);
  for (int order = 1; order <= n; ++order) {
    y = tape.gradient(y, {x}, {.create_graph = order < n})[0];
    result.push_back(y.item());
  }
  return result;
}

}  // namespace

TEST_CASE("nothing is recorded without a tape, and only what depends on watched tensors with one") {
  const Tensor x = scalar(2, f64);
  CHECK(Tape::current() == nullptr);
  CHECK(square(x).trace().generation == 0);
  Tape tape;
  CHECK(Tape::current() == &tape);
  CHECK(square(x).trace().generation == 0);
  CHECK(tape.size() == 0);
  const Tensor y = square(tape.watch(x));
  CHECK(y.trace().generation != 0);
  CHECK(tape.size() == 1);
  {
    const NoRecord no_record;
    CHECK(Tape::current() == nullptr);
    CHECK(square(y).trace().generation == 0);
  }
  {
    Tape inner;
    CHECK(Tape::current() == &inner);
    const TapeScope outer(&tape);
    CHECK(Tape::current() == &tape);
  }
  CHECK(Tape::current() == &tape);
  CHECK(tape.size() == 1);
}

TEST_CASE("gradients add up over all paths") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), z = tape.watch(scalar(5, f64));
  const Tensor a = x * x;
  const Tensor y = a * a + a * x + x - 2 * a;  // x^4 + x^3 + x - 2x^2
  const auto g = tape.gradient(y, {x, z});
  CHECK(g[0].item() == 4 * 27 + 3 * 9 + 1 - 12);
  CHECK(g[1].item() == 0);
  CHECK(tape.size() == 0);
}

TEST_CASE("a tensor that is the output, an intermediate or asked twice has its gradient") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64));
  const Tensor h = square(x);
  const Tensor y = h * x;
  const auto g = tape.gradient(y, {y, h, x, x});
  CHECK(g[0].item() == 1);
  CHECK(g[1].item() == 3);
  CHECK(g[2].item() == 27);
  CHECK(g[3].item() == 27);
}

TEST_CASE("a watched intermediate is a variable of its own") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64));
  const Tensor h = tape.watch(square(x));
  const auto g = tape.gradient(h * x, {x, h});
  CHECK(g[0].item() == 9);
  CHECK(g[1].item() == 3);
}

TEST_CASE("a gradient stops where a tensor is detached") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64));
  CHECK(tape.gradient(x * detach(square(x)), {x})[0].item() == 9);
}

TEST_CASE("gradients of slices meet in the tensor that they were cut from") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2, 5}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, f64));
  const auto half = slice(x, 1, 0, 3), odd = slice(x, 1, 1, 5, 2), last = select(x, 0, 1);
  const Tensor y = sum(half) + 10 * sum(odd) + 100 * sum(last);
  const std::vector<double> expected{1, 11, 1, 10, 0, 101, 111, 101, 110, 100};
  CHECK(tape.gradient(y, {x}, {.keep = true})[0].to_vector() == expected);
  CHECK(tape.gradient(y, {x}, {.create_graph = true})[0].to_vector() == expected);
  CHECK(tape.gradient(y + sum(2 * x), {x})[0].at({0, 0}) == 3);
}

TEST_CASE("steps of a long sequence cost the same on the way back as those of a short one") {
  const auto time_of_step = [](Index steps) {
    Tape tape;
    const Tensor x = tape.watch(ones({steps, 64}));
    Tensor sum_of_steps = zeros({64});
    for (Index t = 0; t < steps; ++t) sum_of_steps = sum_of_steps + select(x, 0, t);
    return testing::cpu_seconds([&] { tape.gradient(sum(sum_of_steps), {x}); }) /
           static_cast<double>(steps);
  };
  double shortest = time_of_step(400), longest = time_of_step(16'000);
  for (int i = 0; i < 4; ++i) {
    shortest = std::min(shortest, time_of_step(400));
    longest = std::min(longest, time_of_step(16'000));
  }
  CHECK(longest < 8 * shortest);  // padding each step to the whole length takes 40 times as long
}

TEST_CASE("a seed replaces 1") {
  Tape tape;
  const Tensor x = tape.watch(tensor({3}, {1, 2, 3}, f64));
  const Tensor y = square(x);
  const auto g = tape.gradient(y, {x}, {.seed = tensor({3}, {1, 0, -1}, f64)});
  CHECK(g[0].to_vector() == std::vector<double>{2, 0, -6});
}

TEST_CASE("a result is a plain tensor, also when a recorded seed passes through") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64));
  const Tensor g = tape.gradient(x, {x}, {.seed = 2 * x})[0];
  CHECK(g.item() == 6);
  CHECK(g.trace().generation == 0);
}

TEST_CASE("a kept tape serves several gradients") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64));
  const Tensor y = tanh(x) * x;
  const double first = tape.gradient(y, {x}, {.keep = true})[0].item();
  CHECK(tape.gradient(y, {x}, {.keep = true})[0].item() == first);
  CHECK(tape.gradient(square(y), {x})[0].item() == 2 * y.item() * first);
  CHECK(tape.size() == 0);
}

TEST_CASE("gradients of gradients") {
  const double x = 0.7, t = std::tanh(x), d = 1 - t * t;
  const auto close = [](const std::vector<double>& values, const std::vector<double>& expected) {
    REQUIRE(values.size() == expected.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      CHECK(values[i] == doctest::Approx(expected[i]).epsilon(1e-12));
  };
  close(derivatives([](const Tensor& z) { return square(square(z)); }, 2, 4), {32, 48, 48, 24});
  close(derivatives([](const Tensor& z) { return tanh(z); }, x, 3),
        {d, -2 * t * d, -2 * d * d + 4 * t * t * d});
  close(derivatives([](const Tensor& z) { return exp(2 * z); }, x, 3),
        {2 * std::exp(2 * x), 4 * std::exp(2 * x), 8 * std::exp(2 * x)});
  close(derivatives([](const Tensor& z) { return log(z); }, x, 3),
        {1 / x, -1 / (x * x), 2 / (x * x * x)});
  close(derivatives([](const Tensor& z) { return 1 / z; }, x, 2), {-1 / (x * x), 2 / (x * x * x)});
}

TEST_CASE("the gradient of a linear function has the gradient zero") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2}, {1, 2}, f64)), w = tape.watch(tensor({2}, {3, 4}, f64));
  const Tensor g = tape.gradient(sum(w * x), {x}, {.create_graph = true})[0];
  const auto second = tape.gradient(sum(g * g), {x, w});
  CHECK(second[0].to_vector() == std::vector<double>{0, 0});
  CHECK(second[1].to_vector() == std::vector<double>{6, 8});
}

TEST_CASE("a Hessian times a vector is the gradient of a projected gradient") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2}, {1, 2}, f64));
  const Tensor y = sum(square(x) * x);  // Hessian: diag(6x)
  const Tensor g = tape.gradient(y, {x}, {.create_graph = true})[0];
  const Tensor v = tensor({2}, {1, -1}, f64);
  CHECK(tape.gradient(g, {x}, {.seed = v})[0].to_vector() == std::vector<double>{6, -12});
}

TEST_CASE("an inner tape differentiates inside a computation that an outer one records") {
  const Params params(1, f64);
  const Param w = params.create("w", {1}, filled_with_two);
  Tape outer;
  const Tensor x = outer.watch(ones({1}, f64));
  Tensor inner_gradient;
  {
    Tape inner;
    inner_gradient = inner.gradient(sum(square(w)), params)["w"];
  }
  const Tensor loss = sum(x * w * inner_gradient);
  CHECK(outer.gradient(loss, params)["w"].item() == 4);
}

TEST_CASE("an op may have more inputs than there are bits to declare what it keeps") {
  Tape tape;
  std::vector<Tensor> parts;
  for (int i = 0; i < 40; ++i) parts.push_back(tape.watch(full({1}, i, f64)));
  const auto g = tape.gradient(sum(square(concat(parts, 0))), parts);
  for (int i = 0; i < 40; ++i) CHECK(g[static_cast<std::size_t>(i)].item() == 2 * i);
}

TEST_CASE("integers on the way are constants") {
  Tape tape;
  const Tensor x = tape.watch(tensor({3}, {-1, 2, 3}, f64));
  const Tensor y = sum(where(x > 0, x, 0 * x));
  CHECK(tape.gradient(y, {x})[0].to_vector() == std::vector<double>{0, 1, 1});
}

TEST_CASE("one tape holds both precisions") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f32)), y = tape.watch(scalar(3, f64));
  const Tensor a = square(x), b = square(y);
  CHECK(tape.gradient(a, {x, y}, {.keep = true})[0].dtype() == f32);
  CHECK(tape.gradient(b, {x, y})[1].item() == 6);
}

TEST_CASE("values that no gradient reads are released at once, the others in the backward pass") {
  // The number of blocks allocated from the heap in the forward and in the backward pass.
  const auto blocks = [](Tensor (*f)(const Tensor&)) {
    Tape tape;
    const Tensor x = tape.watch(zeros({1 << 16}));
    pool::trim();
    const std::size_t before = pool::statistics().heap_allocations;
    Tensor y = x;
    for (int i = 0; i < 100; ++i) y = f(y);
    y = sum(y);
    const std::size_t forward = pool::statistics().heap_allocations;
    tape.gradient(y, {x});
    return std::pair{forward - before, pool::statistics().heap_allocations - forward};
  };
  const auto [adding, adding_back] = blocks([](const Tensor& y) { return y + 1; });
  CHECK(adding < 50);
  CHECK(adding_back < 50);
  const auto [squashing, squashing_back] = blocks([](const Tensor& y) { return tanh(y); });
  CHECK(squashing >= 100);  // its gradient reads the output
  CHECK(squashing_back < 50);
}

TEST_CASE("parameters are leaves, recorded once") {
  const Params params(1, f64);
  Param w = params.create("w", {2}, filled_with_two);
  Tape tape;
  CHECK(w.tensor().trace().slot == w.tensor().trace().slot);
  CHECK(tape.gradient(sum(square(w)), params)["w"].to_vector() == std::vector<double>{4, 4});
  w.edit<double>()[0] = 5;  // the tape is empty again: no error
  CHECK(tape.gradient(sum(square(w)), params)["w"].to_vector() == std::vector<double>{10, 4});
}

TEST_CASE("products that share a parameter are summed as one, wherever it is used besides") {
  // create_graph computes them one at a time: the reference. 3 * 700 rows are more than are
  // collected at once.
  for (const Index rows : {2, 700, 1500})
    for (const bool hooked : {false, true}) {
      CAPTURE(rows);
      const Params params(5, f64);
      const Param w = params.create("w", {6, 6}, nn::init::normal(0.3)),
                  b = params.create("b", {6}, nn::init::normal(0.3));
      const auto gradients = [&](bool create_graph) {
        Tape tape;
        if (hooked) tape.on_gradient(w.tensor(), [](const Tensor& g) { return square(g); });
        Tensor h = Rng(2).normal({rows, 6}, 0, 1, f64);
        for (int t = 0; t < 3; ++t) {
          h = tanh(matmul(h, w) + matmul(h, w, false, true));
          h = affine(h, w, b);
        }
        const Tensor loss = mean(square(h)) + sum(w.tensor() * w.tensor());
        return tape.gradient(loss, params, {.create_graph = create_graph});
      };
      const Gradients gathered = gradients(false), each = gradients(true);
      gathered.each([&](const std::shared_ptr<ParamEntry>& entry, const Tensor& g) {
        const auto exact = each[entry->name].to_vector(), found = g.to_vector();
        for (std::size_t i = 0; i < exact.size(); ++i)
          CHECK(found[i] == doctest::Approx(exact[i]).epsilon(1e-11));
      });
    }
}

TEST_CASE("a million records go forward and backward in a loop, quickly") {
  constexpr int pairs = testing::sanitized ? 100'000 : 500'000;
  Tape tape;
  const Tensor x = tape.watch(full({8}, 0.5)), step = full({8}, 1e-3);
  const auto nanoseconds_a_record = [](auto f) {
    return 1e9 * testing::cpu_seconds(f) / (2 * pairs);
  };
  Tensor y = x, g;
  const double forward = nanoseconds_a_record([&] {
    for (int i = 0; i < pairs; ++i) y = add(tanh(y), step);
  });
  REQUIRE(tape.size() == 2 * pairs);
  const double backward =
      nanoseconds_a_record([&] { g = tape.gradient(y, {x}, {.seed = ones({8})})[0]; });
  CHECK(std::isfinite(g.at({0})));
  INFO("forward ", forward, " ns, backward ", backward, " ns a record");
  CHECK(forward < 10'000);
  CHECK(backward < 20'000);
}
