#pragma once

#include <reel/autograd/cell.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/calls.h>
#include <reel/nn/mode.h>
#include <reel/nn/sizes.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// The parameters of a cell, as its op takes them; undefined where there is none.
struct CellParams {
  Param w_ih, w_hh, b = {}, recurrent_bias = {}, weights = {};

  std::array<const Param*, 5> all() const { return {&w_ih, &w_hh, &b, &recurrent_bias, &weights}; }
  /// On a tape, leaves.
  CellInputs tensors() const {
    return inputs([](const Param& p) { return p.tensor(); });
  }
  /// Not recorded.
  CellInputs values() const {
    return inputs([](const Param& p) { return p.value(); });
  }

 private:
  template <class F>
  CellInputs inputs(F f) const {
    const auto of = [&](const Param& p) { return p.defined() ? f(p) : Tensor(); };
    return {of(w_ih), of(w_hh), of(b), of(recurrent_bias), of(weights), {}};
  }
};

namespace detail {

/// The cell's parameters and the state of x [.., B, D]; throws ShapeError unless it has the shape
/// [B, H].
template <class C>
CellInputs inputs_of(const C& cell, const typename C::State& state, const Tensor& x) {
  CellInputs inputs = cell.params().tensors();
  std::size_t k = 0;
  state.map([&](const Tensor& s) { return inputs.states[k++] = checked_state(s, x, cell.w_hh); });
  return inputs;
}

template <class State>
State state_of(const Tensor* tensors) {
  return State{}.map([&](const Tensor&) { return *tensors++; });
}

}  // namespace detail

/// One step of a cell C with an op: C has `fused()`, which is the op, and `params()`.
template <class C, class S>
struct FusedCellCalls : CellCalls<C, S> {
  using State = S;

  using CellCalls<C, S>::operator();
  /// x [B, D], states [B, H] -> y = h' [B, H] and the next state. Throws ShapeError.
  Output<S> operator()(const Tensor& x, const S& state = {}, const Mode& = Eval{},
                       Site site = {}) const {
    const C& cell = static_cast<const C&>(*this);
    const ModuleScope scope(cell.w_hh.name(), site);
    require_features(C::name, cell.w_ih, x, input_size(), site);
    const CellInputs inputs = detail::inputs_of(cell, state, x);
    Tensors before;
    state.map([&](const Tensor& s) { return before.emplace_back(defined_state(s, x, cell.w_hh)); });
    const Tensors after = cell.fused().spec.step(inputs.input_projection(x), before, inputs);
    return {after[0], detail::state_of<S>(after.data())};
  }

  Index input_size() const { return static_cast<const C&>(*this).w_ih.shape()[1]; }
  Index output_size() const { return static_cast<const C&>(*this).w_hh.shape()[1]; }
};

/// A cell over a sequence: C at every step, as one op. The default mode is Eval.
template <class C>
struct Recurrent : SequenceCalls<Recurrent<C>, typename C::State> {
  using State = typename C::State;
  using Options = typename C::Options;

  /// Throws ValueError for sizes that are not positive.
  Recurrent(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
            const Options& options = {})
      : cell(require_positive(p, C::layer_name,
                              {{"input_size", input_size}, {"hidden_size", hidden_size}}),
             input_size, hidden_size, options) {}

  using SequenceCalls<Recurrent, State>::operator();
  /// x [T, B, D] -> y [T, B, H] and the last state; state, mode and options may each be left out:
  /// see SequenceCalls. Throws ShapeError, or ValueError for lengths outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const ModuleScope scope(cell.w_hh.name(), site);
    const CellInputs inputs = detail::inputs_of(cell, state, x);
    const FusedCell fused = cell.fused();
    const Tensors out = fused.over_sequence(fused.spec, x, {&inputs, 1}, options, {});
    return {out[0], detail::state_of<State>(&out[1])};
  }

  /// Whether two layers can run as one op: of one cell and one size.
  static bool can_run_both(const Recurrent& forward, const Recurrent& backward) {
    return &forward.cell.fused().spec == &backward.cell.fused().spec &&
           forward.output_size() == backward.output_size();
  }
  /// Both over the same sequence, `backward` from the other end: y [T, B, 2 H] and the last states.
  static Output<BidirectionalState<State>> run_both(const Recurrent& forward,
                                                    const Recurrent& backward, const Tensor& x,
                                                    const BidirectionalState<State>& state,
                                                    const SequenceOptions& options, Site site) {
    const ModuleScope scope(module_of(forward.cell.w_hh.name()), site);
    const std::array<CellInputs, 2> inputs{detail::inputs_of(forward.cell, state.forward, x),
                                           detail::inputs_of(backward.cell, state.backward, x)};
    const FusedCell fused = forward.cell.fused();
    const Tensors out = fused.over_sequence(fused.spec, x, inputs, options, {});
    const Tensor* last = &out[1];
    return {
        out[0],
        {detail::state_of<State>(last), detail::state_of<State>(last + fused.spec.layout.states)}};
  }

  Index output_size() const { return cell.output_size(); }

  C cell;
};

}  // namespace reel::nn
