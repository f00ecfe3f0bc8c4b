#include <reel/autograd/scope.h>
#include <reel/nn/gru.h>
#include <reel/nn/lstm.h>
#include <reel/nn/rnn.h>

namespace reel::nn {
Output<HiddenState> Rnn::operator()(const Tensor& x, const State& state, const Mode&,
                                    const SequenceOptions& options, Site site) const {
  const ModuleScope scope(cell.w_hh.name(), site);
  const auto [y, h] = reel::rnn(x, cell.w_ih, cell.w_hh, cell.b,
                                defined_state(state.h, x, cell.w_hh), cell.activation, options);
  return {y, {h}};
}

Output<HiddenState> Gru::operator()(const Tensor& x, const State& state, const Mode&,
                                    const SequenceOptions& options, Site site) const {
  const ModuleScope scope(cell.w_hh.name(), site);
  const auto [y, h] = reel::gru(x, cell.w_ih, cell.w_hh, cell.b, cell.b_hn,
                                defined_state(state.h, x, cell.w_hh), cell.reset, options);
  return {y, {h}};
}

Output<LstmState> Lstm::operator()(const Tensor& x, const State& state, const Mode&,
                                   const SequenceOptions& options, Site site) const {
  const ModuleScope scope(cell.w_hh.name(), site);
  const auto [y, h, c] =
      reel::lstm(x, cell.w_ih, cell.w_hh, cell.b, defined_state(state.h, x, cell.w_hh),
                 defined_state(state.c, x, cell.w_hh), options);
  return {y, {h, c}};
}

}  // namespace reel::nn
