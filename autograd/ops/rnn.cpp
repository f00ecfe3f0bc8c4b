#include <reel/autograd/unit_cell.h>

namespace reel {
namespace {

template <Activation activation>
struct RnnUnit {
  static constexpr kernels::CellLayout layout{.sums = 1, .states = 1, .gates = {"hidden"}};

  static auto unit(const auto& sums, const auto&) {
    const auto& [sum] = sums;
    if constexpr (activation == Activation::tanh)
      return std::tuple(tanh(sum));
    else
      return std::tuple(relu(sum));
  }
};

constinit const CellSpec tanh_cell = cell_spec<RnnUnit<Activation::tanh>>("rnn");
constinit const CellSpec relu_cell = cell_spec<RnnUnit<Activation::relu>>("rnn relu");
constinit const CellSpec* const cells[] = {&tanh_cell, &relu_cell};
REEL_EARLY const op::RecurrentOp rnn_op("rnn", cells);

}  // namespace

FusedCell rnn_cell(Activation activation) {
  return {activation == Activation::tanh ? tanh_cell : relu_cell, rnn_op};
}

RnnResult rnn(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& h0, Activation activation, const SequenceOptions& options, Site site) {
  const CellInputs inputs{w_ih, w_hh, b, {}, {}, {h0}};
  Tensors out = rnn_op(rnn_cell(activation).spec, x, {&inputs, 1}, options, site);
  return {out[0], out[1]};
}

Tensor rnn_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, Activation activation) {
  return rnn_cell(activation).spec.step(p, {h}, {{}, w_hh})[0];
}

}  // namespace reel
