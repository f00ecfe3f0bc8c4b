#include <reel/nn/cells/qrnn.h>

#include <fmt/format.h>

#include <reel/autograd/ops.h>

namespace reel::nn {
namespace {

// The step that each row of x [T, B, D] ends with, which is its first one in reverse; `initial`, or
// 0 if that is undefined, for a row without steps.
Tensor last_step(const Tensor& x, const Tensor& initial, const SequenceOptions& options) {
  const Index rows = x.size(1);
  if (!options.lengths) return select(x, 0, options.reverse ? 0 : -1);
  const Tensor& lengths = *options.lengths;
  Tensor places({rows}, i32);  // in x as [T·B, D]
  std::int32_t* place = places.begin_update<std::int32_t>().data();
  Index row = 0;
  for (const Index length : lengths.values<std::int32_t>()) {
    const Index t = options.reverse || length == 0 ? 0 : length - 1;
    *place++ = static_cast<std::int32_t>(t * rows + row++);
  }
  const Tensor last = gather_rows(reshape(x, {-1, x.size(2)}), places);
  const Tensor begun = expand(lengths > 0, -1);
  return initial.defined() ? where(begun, last, initial) : where(begun, last, 0);
}

}  // namespace

Qrnn::Qrnn(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
           const Options& options)
    : window(options.window), pooling(options.pooling) {
  if (window != 1 && window != 2)
    throw ValueError(
        fmt::format("{}: the window must be 1 or 2, not {}", module_name(p, name), window),
        SiteScope::current());
  const ScanInitializers initial(p, name, window * input_size, hidden_size, options.weight_init,
                                 options.bias_init);
  std::vector<std::string> blocks{"cell", "forget", "output", "input"};
  blocks.resize(static_cast<std::size_t>(gates()));
  w_ih = p.create("w_ih", {gates() * hidden_size, window * input_size}, initial.weight, blocks);
  b = p.create("b", {gates() * hidden_size}, initial.bias, blocks);
}

Output<QrnnState> Qrnn::run(const Tensor& x, const State& state,
                            const SequenceOptions& options) const {
  const Tensor& x_before = checked_state(state.x, x, input_size());
  const Tensor inputs =
      window == 1
          ? x
          : concat(
                {previous_steps(x, x_before, options.lengths.value_or(Tensor()), options.reverse),
                 x},
                -1);
  const Tensors p = split(affine(inputs, w_ih, b), gates(), -1);
  // 1 - f would be rounded at the size of 1.
  const Tensor share = sigmoid(pooling == Pooling::ifo ? p[3] : -p[1]);
  const auto [c, last] = linear_scan(sigmoid(p[1]), share * tanh(p[0]),
                                     checked_state(state.c, x, output_size()), options);
  const Tensor y = pooling == Pooling::f ? c : sigmoid(p[2]) * c;
  return {y, {last, last_step(x, x_before, options)}};
}

}  // namespace reel::nn
