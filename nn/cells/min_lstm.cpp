#include <reel/nn/cells/min_lstm.h>

#include <reel/autograd/ops.h>

namespace reel::nn {

MinLstm::MinLstm(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                 const Options& options)
    : candidate(options.candidate), normalise(options.normalise) {
  const ScanInitializers initial(p, name, input_size, hidden_size, options.weight_init,
                                 options.bias_init);
  const std::vector<std::string> gates{"input", "forget", "cell"};
  w_ih = p.create("w_ih", {3 * hidden_size, input_size}, initial.weight, gates);
  b = p.create("b", {3 * hidden_size}, initial.bias, gates);
}

Output<HiddenState> MinLstm::run(const Tensor& x, const State& state,
                                 const SequenceOptions& options) const {
  const Tensors p = split(affine(x, w_ih, b), 3, -1);
  // f / (f + i) = σ(ln f - ln i).
  const Tensor log_odds = normalise ? log_sigmoid(p[1]) - log_sigmoid(p[0]) : Tensor();
  const Tensor f = sigmoid(normalise ? log_odds : p[1]);
  const Tensor i = sigmoid(normalise ? -log_odds : p[0]);
  const auto [y, h] = linear_scan(f, i * min_candidate(p[2], candidate),
                                  checked_state(state.h, x, output_size()), options);
  return {y, {h}};
}

}  // namespace reel::nn
