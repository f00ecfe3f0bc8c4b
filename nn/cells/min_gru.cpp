#include <reel/nn/cells/min_gru.h>

#include <reel/autograd/ops.h>

namespace reel::nn {

Tensor min_candidate(const Tensor& projection, MinCandidate candidate) {
  if (candidate == MinCandidate::linear) return projection;
  if (candidate == MinCandidate::tanh) return tanh(projection);
  return where(projection >= 0, projection + 0.5, sigmoid(projection));
}

MinGru::MinGru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
               const Options& options)
    : candidate(options.candidate) {
  const ScanInitializers initial(p, name, input_size, hidden_size, options.weight_init,
                                 options.bias_init);
  w_ih = p.create("w_ih", {2 * hidden_size, input_size}, initial.weight, {"update", "new"});
  b = p.create("b", {2 * hidden_size}, initial.bias, {"update", "new"});
}

Output<HiddenState> MinGru::run(const Tensor& x, const State& state,
                                const SequenceOptions& options) const {
  const Tensors p = split(affine(x, w_ih, b), 2, -1);
  // 1 - z would be rounded at the size of 1, and with it the state's share.
  const Tensor z = sigmoid(p[0]), one_minus_z = sigmoid(-p[0]);
  const auto [y, h] = linear_scan(one_minus_z, z * min_candidate(p[1], candidate),
                                  checked_state(state.h, x, output_size()), options);
  return {y, {h}};
}

}  // namespace reel::nn
