// A stack of LSTMs without recurrent matrices that predicts the next character's bits.
#include <reel/autograd/functional.h>
#include <reel/autograd/ops.h>

#include <vector>

#include "evals.h"

using namespace reel;

namespace gradbench {
namespace {

// weights [2 L, 4 B]: for each layer a row of weights and one of biases, in the order forget, in,
// out, change; ends [3, B]: weights of the input and of the output, bias of the output; states
// [2 L, B]: h and c of each layer; characters [T, B].
Tensor objective(const Tensor& weights, const Tensor& ends, const Tensor& states,
                 const Tensor& characters) {
  const Index layers = weights.size(0) / 2, bits = characters.size(1),
              steps = characters.size(0) - 1;
  std::vector<Tensor> w, h, c, tops;
  for (Index row = 0; row < 2 * layers; ++row) w.push_back(select(weights, 0, row));
  for (Index i = 0; i < layers; ++i) {
    h.push_back(select(states, 0, 2 * i));
    c.push_back(select(states, 0, 2 * i + 1));
  }
  const Tensor inputs = slice(characters, 0, 0, steps) * select(ends, 0, 0);
  for (Index t = 0; t < steps; ++t) {
    Tensor x = select(inputs, 0, t);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const Tensors sums =
          split(concat({x, h[i], x, h[i]}, 0) * w[2 * i] + w[2 * i + 1], {3 * bits, bits}, 0);
      const Tensors gates = split(sigmoid(sums[0]), 3, 0);  // forget, in, out
      c[i] = c[i] * gates[0] + gates[1] * tanh(sums[1]);
      x = h[i] = gates[2] * tanh(c[i]);
    }
    tops.push_back(x);
  }
  const Tensor y = stack(tops) * select(ends, 0, 1) + select(ends, 0, 2);
  const Tensor normal = y - log(sum(exp(y), 1, true) + 2);
  return sum(slice(characters, 0, 1, steps + 1) * normal) *
         (-1.0 / static_cast<double>(steps * bits));
}

Prepared made(const Json& input, bool gradient) {
  const std::vector<Tensor> variables = {matrix_of(input.at("main_params")),
                                         matrix_of(input.at("extra_params"))};
  const Tensor states = matrix_of(input.at("state")), characters = matrix_of(input.at("sequence"));
  const auto f = [=](std::span<const Tensor> in) {
    return objective(in[0], in[1], states, characters);
  };
  if (!gradient) return {[=] { return Tensors{f(variables)}; }, first_to_json};
  return {[=] {
            const std::vector<Tensor> both = vjp(f, variables, scalar(1, f64)).gradients;
            return Tensors{concat(
                {reshape(both[0], {both[0].size()}), reshape(both[1], {both[1].size()})}, 0)};
          },
          first_to_json};
}

}  // namespace

Module lstm() {
  return {{"objective", [](const Json& input) { return made(input, false); }},
          {"jacobian", [](const Json& input) { return made(input, true); }}};
}

}  // namespace gradbench
