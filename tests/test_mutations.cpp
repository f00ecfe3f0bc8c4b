#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>

#include "damage.h"
#include "references.h"
#include "testing.h"

using namespace reel;
using namespace reel::testing;

namespace {

using Inputs = std::span<const Tensor>;

// The inputs that the checks draw for an op with only this sample.
std::vector<Tensor> draw(const OpSpec::Sample& sample) {
  Rng rng(17);
  std::vector<Tensor> inputs;
  for (const Generator& generator : sample.inputs) inputs.push_back(generator.draw(rng, f64));
  return inputs;
}

Tensors outputs(const OpSpec& op, const OpSpec::Sample& sample, Inputs inputs) {
  std::vector<const Tensor*> pointers;
  for (const Tensor& x : inputs) pointers.push_back(&x);
  return run(op, pointers, sample.attr.data(), {});
}

// The gradient of y + tanh(y) / 2 with respect to an input, where y is all outputs; at second
// order, the gradients of its projection with respect to all inputs.
std::vector<Tensor> gradients(const OpSpec& op, const OpSpec::Sample& sample, int place,
                              bool second) {
  Tape tape;
  std::vector<Tensor> x = draw(sample), watched;
  for (Tensor& input : x)
    if (input.defined() && is_real(input.dtype())) watched.push_back(input = tape.watch(input));
  const auto project = [](const Tensor& y) {
    const Tensor bent = y + 0.5 * tanh(y);
    return sum(bent * Rng(4).normal(y.shape(), 1, 1, f64));
  };
  Tensor loss = scalar(0, f64);
  for (const Tensor& y : outputs(op, sample, x))
    if (is_real(y.dtype())) loss = loss + project(y);
  if (loss.trace().generation == 0 || place >= std::ssize(x)) return {};
  const Tensor& input = x[static_cast<std::size_t>(place)];
  if (!input.defined()) return {};  // an absent argument
  const Tensor g = tape.gradient(loss, {input}, {.create_graph = second, .keep = true})[0];
  if (!second) return {g.detach()};
  const Tensor again = project(g);
  std::vector<Tensor> result;
  for (const Tensor& w : watched) result.push_back(zeros(w.shape(), f64));
  if (again.trace().generation == 0) return result;
  const auto of_again = tape.gradient(again, watched);
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = of_again[i].detach();
  return result;
}

// The numbers that the damage affects.
std::vector<Tensor> target(const OpSpec& op, const OpSpec::Sample& sample, const Damage& d) {
  if (d.part == Part::value)
    return {outputs(op, sample, draw(sample))[static_cast<std::size_t>(d.place)]};
  return gradients(op, sample, d.place, d.part == Part::specification || d.way == Way::detached);
}

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::ranges::equal(a, b, [](const Tensor& x, const Tensor& y) {
    return std::ranges::equal(x.to_vector(), y.to_vector(), [](double v, double w) {
      return std::abs(v - w) <= 1e-9 * (1 + std::abs(v));  // beyond rounding
    });
  });
}

// Whether the damage cannot show: it leaves these numbers unchanged.
bool immune(const std::vector<Tensor>& numbers, Way way) {
  return std::ranges::all_of(numbers, [&](const Tensor& x) {
    const auto v = x.to_vector();
    if (way == Way::transposed || way == Way::off_by_one)
      return std::ranges::all_of(v, [&](double y) { return y == v[0]; });
    return std::ranges::all_of(v, [&](double y) { return y == 0 && way != Way::shifted; });
  });
}

// The smallest sample on which the damage changes anything; null where none does.
const OpSpec::Sample* sample_to_show(const OpSpec& wrong, const Damage& d) {
  std::vector<std::pair<Index, const OpSpec::Sample*>> by_size;
  for (const OpSpec::Sample& sample : d.op->samples) {
    Index size = 0;
    for (const Generator& generator : sample.inputs) size += generator.shape.size();
    if (size > 0) by_size.emplace_back(size, &sample);
  }
  std::ranges::stable_sort(by_size, {}, [](const auto& entry) { return entry.first; });
  for (const auto& [size, sample] : by_size)
    if (!same(target(*d.op, *sample, d), target(wrong, *sample, d))) return sample;
  return nullptr;
}

// Runs the cheapest and most sensitive checks first, and all of them if those find nothing.
bool is_seen(const OpSpec& op, const Reference& reference) {
  return !check_values(op, reference).empty() || !check_specification(op).empty() ||
         !check_derivatives(op).empty() || !check_op(op, reference).empty();
}

// With the address sanitizer, recurrent layers are damaged at every fifth of their many arguments:
// they take nearly all of the time of all ops together.
bool is_left_out(const Damage& damage) {
  return sanitized && damage.part != Part::value && damage.op->arguments.size() > 8 &&
         damage.place % 5 != 0;
}

// Checks all kinds of damage at one place; returns their number.
int check_damages(const OpSpec& op, Part part, int place) {
  int count = 0;
  for (const Way way : ways) {
    const Damage damage{&op, part, place, way};
    if (!applies(damage) || is_left_out(damage)) continue;
    CAPTURE(damage.str());
    OpSpec wrong = damaged(damage);
    if (const OpSpec::Sample* sample = sample_to_show(wrong, damage)) {
      wrong.samples = {OpSpec::Sample(*sample)};
      CHECK(is_seen(wrong, reference_of(op)));
      ++count;
    } else {
      for (const OpSpec::Sample& s : op.samples) CHECK(immune(target(op, s, damage), way));
    }
  }
  return count;
}

}  // namespace

// About the checks, so there is nothing in it for a sanitizer to find.
TEST_CASE("mutations: every op, damaged in every way, is caught" *
          doctest::skip(testing::sanitized)) {
  int count = 0;
  for (const OpSpec* op : registry()) {
    const OpSpec::Sample& sample = op->samples[0];
    std::size_t inputs = 0;
    for (const OpSpec::Sample& s : op->samples) inputs = std::max(inputs, s.inputs.size());
    const int results = static_cast<int>(outputs(*op, sample, draw(sample)).size());
    for (const Part part : parts)
      for (int place = 0; place < (part == Part::value ? results : static_cast<int>(inputs));
           ++place)
        count += check_damages(*op, part, place);
  }
  CHECK(count > 1000);
}

TEST_CASE("mutations: the mechanism makes no errors by itself") {
  for (const OpSpec* op : registry()) {
    // At first order a gradient that is only detached is right.
    const Damage harmless{op, Part::gradient, 0, Way::detached};
    if (!applies(harmless)) continue;
    CAPTURE(op->name);
    const OpSpec copy = damaged(harmless);
    for (const OpSpec::Sample& s : op->samples)
      CHECK(same(gradients(*op, s, 0, false), gradients(copy, s, 0, false)));
  }
}

// --- functions composed of right ops ---

namespace {

// The value of one function with the gradient of another.
TensorFunction with_gradient_of(const TensorFunction& other, const TensorFunction& value) {
  return [=](Inputs x) {
    const Tensor gradient = other(x);
    return value(x).detach() + (gradient - gradient.detach());
  };
}

// The gradient of x₀ as a function, which is what orders above the first are about.
TensorFunction gradient_of(const TensorFunction& f) {
  return [=](Inputs x) {
    return Tape::current()->gradient(sum(f(x)), {x[0]}, {.create_graph = true})[0];
  };
}

// h' = tanh(x w + h u) over the rows of x; `link` stands between one step and the next.
TensorFunction loop(Tensor (*link)(const Tensor& h, Index step)) {
  return [=](Inputs in) {
    const Tensor &x = in[0], &w = in[1], &u = in[2];
    Tensor h = zeros({1, u.size(0)}, f64);
    std::vector<Tensor> states;
    for (Index t = 0; t < x.size(0); ++t) {
      h = tanh(matmul(slice(x, 0, t, t + 1), w) + matmul(link(h, t), u));
      states.push_back(h);
    }
    return concat(states, 0);
  };
}

std::vector<Tensor> draw(std::initializer_list<Shape> shapes) {
  Rng rng(8);
  std::vector<Tensor> inputs;
  for (const Shape& shape : shapes) inputs.push_back(rng.normal(shape, 0, 1, f64));
  return inputs;
}

// Both modes pass the right function, and detect one with the gradient of the other.
void check_caught(const std::vector<Tensor>& inputs, const TensorFunction& right,
                  const TensorFunction& other) {
  using Mode = GradcheckOptions::Mode;
  for (const Mode mode : {Mode::slow, Mode::fast}) {
    CAPTURE(mode == Mode::fast);
    const auto good = check_gradients(right, inputs, {.mode = mode});
    CHECK_MESSAGE(good.ok, good.str());
    const auto bad = check_gradients(with_gradient_of(other, right), inputs, {.mode = mode});
    CHECK_MESSAGE(!bad.ok, bad.str());
  }
}

}  // namespace

TEST_CASE("mutations: functions with a wrong gradient are caught in both modes") {
  const auto recurrent = draw({{4, 2}, {2, 3}, {3, 3}});
  const TensorFunction whole = loop([](const Tensor& h, Index) { return h; });
  SUBCASE("a state is detached between two steps") {
    check_caught(recurrent, whole,
                 loop([](const Tensor& h, Index t) { return t == 2 ? h.detach() : h; }));
  }
  SUBCASE("a gradient is halved on its way") {
    check_caught(recurrent, whole,
                 loop([](const Tensor& h, Index) { return 0.5 * h + 0.5 * h.detach(); }));
  }
  SUBCASE("lengths are forgotten") {
    const auto run = [](Inputs x, const SequenceOptions& options) {
      return lstm(x[0], x[1], x[2], x[3], x[4], x[5], options).y;
    };
    check_caught(
        draw({{3, 2, 2}, {8, 2}, {8, 2}, {8}, {2, 2}, {2, 2}}),
        [=](Inputs x) { return run(x, {.lengths = full({2}, 2, i32)}); },
        [=](Inputs x) { return run(x, {}); });
  }
  SUBCASE("only one use of a shared weight counts") {
    const auto tied = [](const Tensor& x, const Tensor& w, const Tensor& again) {
      return matmul(tanh(matmul(x, w)), again, false, true);
    };
    check_caught(
        draw({{2, 3}, {3, 3}}), [=](Inputs x) { return tied(x[0], x[1], x[1]); },
        [=](Inputs x) { return tied(x[0], x[1], x[1].detach()); });
  }
  SUBCASE("1e-5 of one coordinate in a thousand") {
    check_caught(
        draw({{1000}}), [](Inputs x) { return square(x[0]); },
        [](Inputs x) {
          return concat({ones({999}, f64), full({1}, 1 + 1e-5, f64)}, 0) * square(x[0]);
        });
  }
  SUBCASE("the gradient of a gradient penalty forgets a term") {
    check_caught(draw({{4}}), gradient_of([](Inputs x) { return square(x[0]) * x[0]; }),
                 gradient_of([](Inputs x) { return square(x[0]).detach() * x[0] * 3; }));
  }
}
