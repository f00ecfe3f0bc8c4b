#include <reel/nn/cells/sru.h>

#include <cmath>

#include <reel/autograd/ops.h>
#include <reel/nn/init.h>

namespace reel::nn {

Sru::Sru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
         const Options& options) {
  begin_module(p, name, {{"input_size", input_size}, {"hidden_size", hidden_size}});
  const Initializer uniform = init::uniform(std::sqrt(3 / static_cast<double>(input_size)));
  std::vector<std::string> blocks{"cell", "forget", "reset"};
  if (input_size != hidden_size) blocks.emplace_back("highway");
  w_ih = p.create("w_ih", {std::ssize(blocks) * hidden_size, input_size},
                  options.weight_init ? options.weight_init : uniform, blocks);
  b = p.create("b", {2 * hidden_size}, options.bias_init ? options.bias_init : init::constant(0),
               {"forget", "reset"});
}

Output<CellState> Sru::run(const Tensor& x, const State& state,
                           const SequenceOptions& options) const {
  const Index size = output_size();
  const bool projects = input_size() != size;
  const Tensor none = zeros({size}, b.dtype());
  const Tensor bias = projects ? concat({none, b, none}, 0) : concat({none, b}, 0);
  const Tensors p = split(affine(x, w_ih, bias), projects ? 4 : 3, -1);
  const Tensor& u = projects ? p[3] : x;
  // 1 - f and 1 - r would be rounded at the size of 1.
  const auto [c, last] =
      linear_scan(sigmoid(p[1]), sigmoid(-p[1]) * p[0], checked_state(state.c, x, size), options);
  return {sigmoid(p[2]) * c + sigmoid(-p[2]) * u, {last}};
}

}  // namespace reel::nn
