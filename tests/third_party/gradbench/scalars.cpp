// The evals of a few numbers, two of which nest one derivative in another.
#include <reel/autograd/functional.h>
#include <reel/autograd/ops.h>

#include <cmath>
#include <functional>
#include <vector>

#include "evals.h"

using namespace reel;

namespace gradbench {
namespace {

using Function = std::function<Tensor(const Tensor&)>;

Tensor unit(Index size, Index i) { return pad(full({1}, 1, f64), 0, i, size - 1 - i); }

// ∇f(x) for x [N], by one product with the transposed Jacobian, or forward, by N with the Jacobian.
Tensor gradient(const Function& f, const Tensor& x, bool forward) {
  const auto of_inputs = [&](std::span<const Tensor> in) { return f(in[0]); };
  if (!forward) return vjp(of_inputs, {x}, scalar(1, f64)).gradients[0];
  std::vector<Tensor> parts;
  for (Index i = 0; i < x.size(); ++i)
    parts.push_back(jvp(of_inputs, {x}, {unit(x.size(), i)}).tangent);
  return stack(parts);
}

// Gradient descent as the evals have it: the rate doubles after 10 steps, and halves where a step
// would not lead downwards.
Tensor argmin_of(const Function& f, const Function& gradient_of, const Tensor& start) {
  constexpr double close = 1e-5;
  Tensor x = start;
  double value = f(x).item(), rate = 1e-5;
  Tensor g = gradient_of(x);
  for (int steps = 0; norm(g).item() > close;) {
    if (steps == 10) {
      rate *= 2;
      steps = 0;
      continue;
    }
    const Tensor next = x - rate * g;
    if (norm(next - x).item() <= close) break;
    const double there = f(next).item();
    if (there < value) {
      x = next;
      value = there;
      g = gradient_of(x);
      ++steps;
    } else {
      rate /= 2;
      steps = 0;
    }
  }
  return x;
}

Tensor difference_of_squares(const Tensor& x, const Tensor& y) {
  return sum(square(x)) - sum(square(y));
}

// The y that makes the function largest at this x.
Tensor best_answer(const Tensor& x, const Tensor& start, bool forward) {
  const Function f = [&](const Tensor& y) { return neg(difference_of_squares(x, y)); };
  return argmin_of(
      f, [&](const Tensor& y) { return gradient(f, y, forward); }, start);
}

Tensors find_saddle(const Tensor& start, bool outer_forward, bool inner_forward) {
  const Function worst = [&](const Tensor& x) {
    return difference_of_squares(x, best_answer(x, start, inner_forward));
  };
  const Function slope = [&](const Tensor& x) {
    const Tensor y = best_answer(x, start, inner_forward);
    return gradient([&](const Tensor& z) { return difference_of_squares(z, y); }, x, outer_forward);
  };
  const Tensor x = argmin_of(worst, slope, start);
  return {concat({x, best_answer(x, start, inner_forward)}, 0)};
}

// The square of the place where a particle in the field of two charges, at (10, 0) and (10, 10 -
// w), comes to the x-axis, by Euler's method.
Tensor landing(const Tensor& w, bool inner_forward) {
  constexpr double dt = 0.1;
  const Tensor charges = concat({tensor({3}, {10, 0, 10}, f64), 10 - w}, 0);
  const Tensor places = reshape(charges, {2, 2});
  const Function potential = [&](const Tensor& x) {
    return sum(rsqrt(sum(square(x - places), 1)));
  };
  Tensor x = tensor({2}, {0, 8}, f64), v = tensor({2}, {0.75, 0}, f64);
  for (int step = 0; step < 1'000'000; ++step) {
    const Tensor next = x + dt * v;
    if (next.values<double>()[1] < 0) break;
    v = v - dt * gradient(potential, x, inner_forward);
    x = next;
  }
  const Tensors at = split(x, 2, 0), speed = split(v, 2, 0);
  return sum(square(at[0] - at[1] / speed[1] * speed[0]));
}

Tensors best_charge(const Tensor& start, bool outer_forward, bool inner_forward) {
  const Function f = [&](const Tensor& w) { return landing(w, inner_forward); };
  return {select(argmin_of(
                     f, [&](const Tensor& w) { return gradient(f, w, outer_forward); }, start),
                 0, 0)};
}

// rr, rf, fr, ff: forward or reverse for the outer and the inner derivative.
Module four_ways(Tensors (*compute)(const Tensor&, bool, bool), Tensor (*start)(const Json&)) {
  Module module;
  for (const bool outer : {false, true})
    for (const bool inner : {false, true})
      module[std::string(outer ? "f" : "r") + (inner ? "f" : "r")] = [=](const Json& input) {
        const Tensor x = start(input);
        return Prepared{[=] { return compute(x, outer, inner); }, first_to_json};
      };
  return module;
}

}  // namespace

Module saddle() {
  return four_ways(find_saddle, [](const Json& input) { return vector_of(input.at("start")); });
}

Module particle() {
  return four_ways(best_charge,
                   [](const Json& input) { return full({1}, input.at("w").get<double>(), f64); });
}

Module hello() {
  return {{"square",
           [](const Json& input) {
             const Tensor x = scalar(input.get<double>(), f64);
             return Prepared{[=] { return Tensors{square(x)}; }, first_to_json};
           }},
          {"double", [](const Json& input) {
             const Tensor x = scalar(input.get<double>(), f64);
             return Prepared{
                 [=] {
                   return Tensors{vjp([](std::span<const Tensor> in) { return square(in[0]); }, {x},
                                      scalar(1, f64))
                                      .gradients[0]};
                 },
                 first_to_json};
           }}};
}

}  // namespace gradbench
