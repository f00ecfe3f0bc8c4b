#pragma once

#include <reel/autograd/ops.h>
#include <reel/nn/calls.h>
#include <reel/nn/init.h>

/// Cells of a program's own, in ops, as other libraries' tests define them; nn::Unroll makes layers
/// of them. Parameters begin as zeros, for the driver sets them.
namespace third_party {

/// h' = W x + U h
struct LinearCell : reel::nn::CellCalls<LinearCell, reel::nn::HiddenState> {
  using State = reel::nn::HiddenState;

  LinearCell(const reel::Params& p, reel::Index inputs, reel::Index units)
      : w_ih(p.create("w_ih", {units, inputs}, reel::nn::init::constant(0))),
        w_hh(p.create("w_hh", {units, units}, reel::nn::init::constant(0))) {}

  using CellCalls::operator();
  reel::nn::Output<State> operator()(const reel::Tensor& x, const State& state,
                                     const reel::nn::Mode& = reel::nn::Eval{},
                                     reel::Site = {}) const {
    reel::Tensor h = matmul(x, w_ih, false, true);
    if (state.h.defined()) h = h + matmul(state.h, w_hh, false, true);
    return {h, {h}};
  }
  reel::Index output_size() const { return w_hh.shape()[0]; }

  reel::Param w_ih, w_hh;
};

/// h' = W x + U h and c' = W x + V h, with the output h' + c'
struct TwoStatesCell : reel::nn::CellCalls<TwoStatesCell, reel::nn::LstmState> {
  using State = reel::nn::LstmState;

  TwoStatesCell(const reel::Params& p, reel::Index inputs, reel::Index units)
      : first(p, inputs, units),
        w_hc(p.create("w_hc", {units, units}, reel::nn::init::constant(0))) {}

  using CellCalls::operator();
  reel::nn::Output<State> operator()(const reel::Tensor& x, const State& state,
                                     const reel::nn::Mode& mode = reel::nn::Eval{},
                                     reel::Site = {}) const {
    const reel::Tensor h = first(x, {state.h}, mode).y;
    reel::Tensor c = matmul(x, first.w_ih, false, true);
    if (state.h.defined()) c = c + matmul(state.h, w_hc, false, true);
    return {h + c, {h, c}};
  }
  reel::Index output_size() const { return first.output_size(); }

  LinearCell first;
  reel::Param w_hc;
};

}  // namespace third_party
