#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>

#include "mutations.h"

namespace reel::testing {
namespace {

using Inputs = std::span<const Tensor>;

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

LstmResult run_lstm(Inputs x, const SequenceOptions& options = {}) {
  return lstm(x[0], x[1], x[2], x[3], x[4], x[5], options);
}

Tensor whole(const Tensor& h, Index) { return h; }

std::vector<Tensor> draw(std::initializer_list<Shape> shapes) {
  Rng rng(8);
  std::vector<Tensor> inputs;
  for (const Shape& shape : shapes) inputs.push_back(rng.normal(shape, 0, 1, f64));
  return inputs;
}

}  // namespace

std::vector<Mutation> function_mutations() {
  std::vector<Mutation> all;
  // The value is that of `right`, the gradient that of `other`.
  const auto add = [&](const char* name, const std::vector<Tensor>& inputs,
                       const TensorFunction& right, const TensorFunction& other) {
    all.push_back({name, 1, inputs, with_gradient_of(other, right), right});
  };
  const auto recurrent = draw({{4, 2}, {2, 3}, {3, 3}});
  add("loop: the hidden state is detached", recurrent, loop(whole),
      loop([](const Tensor& h, Index) { return h.detach(); }));
  add("loop: the state is detached between two steps", recurrent, loop(whole),
      loop([](const Tensor& h, Index t) { return t == 2 ? h.detach() : h; }));
  add("loop: the gradient is clipped to 1/2 on its way", recurrent, loop(whole),
      loop([](const Tensor& h, Index) { return 0.5 * h + 0.5 * h.detach(); }));

  const auto layer = draw({{3, 2, 2}, {8, 2}, {8, 2}, {8}, {2, 2}, {2, 2}});
  const auto y = [](Inputs x) { return run_lstm(x).y; };
  add("layer: the direction is swapped", layer, y,
      [](Inputs x) { return run_lstm(x, {.reverse = true}).y; });
  add(
      "layer: lengths are forgotten", layer,
      [](Inputs x) { return run_lstm(x, {.lengths = full({2}, 2, i32)}).y; }, y);
  add(
      "layer: the last cell stands for the last state", layer,
      [](Inputs x) { return run_lstm(x).h; }, [](Inputs x) { return run_lstm(x).c; });
  add("layer: the initial state is detached", layer, y, [](Inputs x) {
    std::vector<Tensor> in(x.begin(), x.end());
    in[4] = in[4].detach();
    return run_lstm(in).y;
  });

  const auto cell = draw({{2, 3}, {2, 3}, {9, 3}, {3}});
  const auto step = [](Reset reset) {
    return [=](Inputs x) {
      return gru_step(concat({x[0], x[0], x[0]}, -1), x[1], x[2], x[3], reset);
    };
  };
  add("gru cell: the gradient of the other reset convention", cell, step(Reset::after),
      step(Reset::before));

  const Tensor targets = tensor({3}, std::vector<std::int32_t>{1, 0, 3});
  const Tensor mask = tensor({3}, {1, 0, 1}, f64);
  add(
      "cross entropy: the mask is forgotten", draw({{3, 4}}),
      [=](Inputs x) { return cross_entropy(x[0], targets, mask); },
      [=](Inputs x) { return cross_entropy(x[0], targets); });
  add(
      "cross entropy: a sum in place of the mean", draw({{3, 4}}),
      [=](Inputs x) { return cross_entropy(x[0], targets); },
      [=](Inputs x) { return 3.0 * cross_entropy(x[0], targets); });

  const auto two_layers = draw({{2, 3}, {3, 3}});
  const auto tied = [](Inputs x) { return matmul(tanh(matmul(x[0], x[1])), x[1], false, true); };
  add("shared weight: only one use counts", two_layers, tied,
      [](Inputs x) { return matmul(tanh(matmul(x[0], x[1])), x[1].detach(), false, true); });
  add("shared weight: counted twice too often", two_layers, tied, [=](Inputs x) {
    const std::vector<Tensor> doubled{x[0], 2 * x[1] - x[1].detach()};
    return tied(doubled);
  });

  const auto norm = [](Inputs x) { return layer_norm(x[0], x[1], x[2]); };
  add("layer norm: the deviation is held constant", draw({{3, 5}, {5}, {5}}), norm, [](Inputs x) {
    const Tensor centred = x[0] - mean(x[0], -1, true);
    const Tensor deviation = sqrt(mean(square(centred), -1, true) + 1e-5);
    return x[1] * (centred / deviation.detach()) + x[2];
  });
  add("layer norm: the mean is held constant", draw({{3, 5}, {5}, {5}}), norm, [](Inputs x) {
    const Tensor centred = x[0] - mean(x[0], -1, true).detach();
    return x[1] * (centred / sqrt(mean(square(centred), -1, true) + 1e-5)) + x[2];
  });
  add(
      "bias: not trained", draw({{2, 3}, {4, 3}, {4}}),
      [](Inputs x) { return affine(x[0], x[1], x[2]); },
      [](Inputs x) { return affine(x[0], x[1], x[2].detach()); });
  add(
      "concat: the parts change places", draw({{2, 3}, {2, 3}}),
      [](Inputs x) {
        return concat({x[0], x[1]}, -1);
      },
      [](Inputs x) {
        return concat({x[1], x[0]}, -1);
      });
  add(
      "small: 1e-5 of one coordinate in a thousand", draw({{1000}}),
      [](Inputs x) { return square(x[0]); },
      [](Inputs x) {
        const Tensor factors = concat({ones({999}, f64), full({1}, 1 + 1e-5, f64)}, 0);
        return factors * square(x[0]);
      });

  // A gradient penalty: the function is a gradient itself, and its own gradient is wrong.
  const auto cubed = [](Inputs x) { return square(x[0]) * x[0]; };
  add("gradient penalty: the gradient's gradient forgets a term", draw({{4}}), gradient_of(cubed),
      gradient_of([](Inputs x) { return square(x[0]).detach() * x[0] * 3; }));
  return all;
}

}  // namespace reel::testing
