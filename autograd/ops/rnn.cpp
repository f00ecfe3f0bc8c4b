#include <reel/autograd/unit_cell.h>

namespace reel {
namespace {

template <Activation activation>
[[gnu::always_inline]] inline auto activated(const auto& sum) {
  if constexpr (activation == Activation::tanh)
    return tanh(sum);
  else
    return relu(sum);
}

template <Activation activation, bool layer_norm>
struct RnnUnit {
  static constexpr kernels::CellLayout layout{
      .sums = 1, .states = 1, .norm = layer_norm, .gates = {"hidden"}};

  static auto unit(const auto& sums, const auto&) {
    return std::tuple(activated<activation>(std::get<0>(sums)));
  }
};

// Its units see only their own state: u ∘ h in place of U h.
template <Activation activation>
struct IndRnnUnit {
  static constexpr kernels::CellLayout layout{
      .sums = 1, .states = 1, .weights = 1, .recurrent = {0, 0}, .gates = {"hidden"}};

  static auto unit(const auto& sums, const auto& before, const auto& weights) {
    const auto& [h] = before;
    const auto& [u] = weights;
    return std::tuple(activated<activation>(std::get<0>(sums) + u * h));
  }
};

using enum Activation;
template <Activation activation, bool layer_norm>
constinit const CellSpec rnn_spec = cell_spec<RnnUnit<activation, layer_norm>>("rnn");
template <Activation activation>
constinit const CellSpec ind_rnn_spec = cell_spec<IndRnnUnit<activation>>("ind_rnn");

constinit const CellSpec* const rnns[][2] = {{&rnn_spec<tanh, false>, &rnn_spec<tanh, true>},
                                             {&rnn_spec<relu, false>, &rnn_spec<relu, true>}};
constinit const CellSpec* const ind_rnns[] = {&ind_rnn_spec<tanh>, &ind_rnn_spec<relu>};
REEL_EARLY const op::RecurrentOp rnn_op("rnn", std::span(&rnns[0][0], 4));
REEL_EARLY const op::RecurrentOp ind_rnn_op("ind_rnn", ind_rnns);

}  // namespace

FusedCell rnn_cell(Activation activation, bool layer_norm) {
  return {*rnns[static_cast<int>(activation)][layer_norm ? 1 : 0], rnn_op};
}
FusedCell ind_rnn_cell(Activation activation) {
  return {*ind_rnns[static_cast<int>(activation)], ind_rnn_op};
}

RnnResult rnn(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& h0, Activation activation, const SequenceOptions& options, Site site) {
  const CellInputs inputs{w_ih, w_hh, b, {}, {}, {}, {h0}};
  Tensors out = rnn_op(rnn_cell(activation).spec, x, {&inputs, 1}, options, {}, site);
  return {out[0], out[1]};
}

Tensor rnn_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, Activation activation) {
  return states_after(rnn_cell(activation).spec, p, {h}, {{}, w_hh}, {})[0];
}

}  // namespace reel

namespace reel::op::linked {
void rnn() {}
}  // namespace reel::op::linked
