#include <reel/nn/cells/rg_lru.h>

#include <cmath>

#include <reel/autograd/ops.h>

namespace reel::nn {
namespace {

constexpr double rate = 8;  // the paper's c

// Λ for decays exp(-c softplus(Λ)) that are uniform in [0.9, 0.999).
Tensor draw_lambda(Rng& rng, const Shape& shape, DType dtype) {
  const Tensor decay = rng.uniform(shape, 0.9, 0.999, f64);
  return log(expm1(log(decay) / -rate)).to(dtype);
}

}  // namespace

RgLru::RgLru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
             const Options& options) {
  const ScanInitializers initial(p, name, input_size, hidden_size, options.weight_init,
                                 options.bias_init);
  std::vector<std::string> blocks{"recurrence", "input"};
  b = p.create("b", {2 * hidden_size}, initial.bias, blocks);
  if (input_size != hidden_size) blocks.emplace_back("projection");
  w_ih = p.create("w_ih", {std::ssize(blocks) * hidden_size, input_size}, initial.weight, blocks);
  lambda = p.create("lambda", {hidden_size}, draw_lambda);
}

Output<HiddenState> RgLru::run(const Tensor& x, const State& state,
                               const SequenceOptions& options) const {
  const Index size = output_size();
  const bool projects = input_size() != size;
  const Tensor bias = projects ? concat({b, zeros({size}, b.dtype())}, 0) : b.tensor();
  const Tensors p = split(affine(x, w_ih, bias), projects ? 3 : 2, -1);
  const Tensor r = sigmoid(p[0]), i = sigmoid(p[1]), &u = projects ? p[2] : x;
  const Tensor log_a = -rate * softplus(lambda) * r;
  // 1 - a² without cancellation; its root has no slope at 0, where r has underflowed.
  const Tensor scale = sqrt(maximum(-expm1(2 * log_a), 1e-30));
  const auto [y, h] =
      linear_scan(exp(log_a), scale * (i * u), checked_state(state.h, x, size), options);
  return {y, {h}};
}

}  // namespace reel::nn
