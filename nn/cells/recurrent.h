#pragma once

#include <array>
#include <limits>

#include <reel/autograd/cell.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/calls.h>
#include <reel/nn/mode.h>
#include <reel/nn/sizes.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// What a recurrent layer drops in training; all are probabilities in [0, 1). Equations are in
/// docs/cells.md.
struct CellDropout {
  /// Of x, with one mask for the whole sequence (Gal and Ghahramani, 2016).
  double input = 0;
  /// Of h in the recurrent products, with one mask for the whole sequence (the same).
  double hidden = 0;
  /// Of the candidate, what a step adds to the state (Semeniuta et al., 2016); not in an Rnn or
  /// IndRnn.
  double update = 0;
  /// Of w_hh, once a call (weight drop: Merity et al., 2018, after Wan et al., 2013).
  double weights = 0;
  /// The probability that a number of h keeps its value, and the same for c (zoneout: Krueger et
  /// al., 2017). In Eval old and new value are mixed in that proportion.
  double zoneout_h = 0, zoneout_c = 0;

  bool operator==(const CellDropout&) const = default;
};

/// The parameters of a cell, as its op takes them; undefined where there is none. `numbers` are
/// those per unit, one after another.
struct CellParams {
  Param w_ih, w_hh, b = {}, recurrent_bias = {}, projection = {};
  std::array<Param, 4> numbers = {};

  /// Calls f(param) for each.
  template <class F>
  void each(F f) const {
    for (const Param* p : {&w_ih, &w_hh, &b, &recurrent_bias, &projection})
      if (p->defined()) f(*p);
    for (const Param& p : numbers)
      if (p.defined()) f(p);
  }
  /// On a tape, leaves.
  CellInputs tensors() const;
  /// Not recorded.
  CellInputs values() const;
};

namespace detail {

/// Throws ValueError, naming the module, for a rate outside [0, 1) or one that the cell has no use
/// for.
void check_dropout(const ModuleParams& p, const char* cell, const CellDropout& dropout,
                   const kernels::CellLayout& layout);

/// The parameters per unit of a cell: those of its own, named `weights`, and of its norms `norm_ih`
/// [G H], `norm_hh` [G H] and `norm_c` [2 H].
std::array<Param, 4> create_numbers(const ModuleParams& p, const kernels::CellLayout& layout,
                                    Index units, const char* weights, const Initializer& init);

/// A call of a cell: what its op takes.
struct PreparedCall {
  Tensor x;
  CellInputs inputs;
  kernels::StepOptions step;
};
/// Draws what the mode drops: of x [.., B, D], of w_hh, and of the steps.
PreparedCall prepare(const Tensor& x, const CellParams& params, const kernels::CellLayout& layout,
                     const CellDropout& dropout, const kernels::StepOptions& in_eval,
                     const Mode& mode);

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
  /// x [B, D], states [B, H] -> y = h' [B, H] and the next state. In training, masks are those of
  /// a sequence of one step. Throws ShapeError.
  Output<S> operator()(const Tensor& x, const S& state = {}, const Mode& mode = Eval{},
                       Site site = {}) const {
    const ModuleScope scope(self().w_ih.name(), site);
    require_features(C::name, self().w_ih, x, input_size(), site);
    const CellSpec& spec = self().fused().spec;
    const detail::PreparedCall call = prepare(x, state, mode);
    Tensors before;
    for (int k = 0; k < spec.layout.states; ++k) {
      const auto i = static_cast<std::size_t>(k);
      before.push_back(defined_state(call.inputs.states[i], x, state_size(i)));
    }
    const Tensors after = states_after(spec, call.inputs.input_part(spec.layout, call.x), before,
                                       call.inputs, {call.step});
    return {after[0], detail::state_of<S>(after.data())};
  }

  /// What a call over x passes on. Throws ShapeError for a state that does not fit.
  detail::PreparedCall prepare(const Tensor& x, const S& state, const Mode& mode) const {
    detail::PreparedCall call = detail::prepare(x, self().params(), self().fused().spec.layout,
                                                dropout, step_options(), mode);
    std::size_t k = 0;
    state.map([&](const Tensor& s) {
      const Tensor& checked = checked_state(s, x, state_size(k));
      return call.inputs.states[k++] = checked;
    });
    return call;
  }

  /// What a step does beside the cell's equations, in Eval.
  kernels::StepOptions step_options() const {
    return {.zoneout_h = dropout.zoneout_h,
            .zoneout_c = dropout.zoneout_c,
            .update_dropout = dropout.update,
            .hidden_dropout = dropout.hidden,
            .cell_bound = cell_bound};
  }

  Index input_size() const { return self().w_ih.shape()[1]; }
  Index hidden_size() const { return self().w_ih.shape()[0] / self().fused().spec.layout.inputs; }
  Index output_size() const { return state_size(0); }

  CellDropout dropout;
  double cell_bound = std::numeric_limits<double>::infinity();

 private:
  const C& self() const { return static_cast<const C&>(*this); }
  // Of state k: h may be projected.
  Index state_size(std::size_t k) const {
    if constexpr (requires { self().w_hh; })
      if (k == 0) return self().w_hh.shape()[1];
    return hidden_size();
  }
};

/// A cell over a sequence: C at every step, as one op. The default mode is Eval.
template <class C>
struct Recurrent : SequenceCalls<Recurrent<C>, typename C::State> {
  using State = typename C::State;
  using Options = typename C::Options;

  /// Throws ValueError for sizes that are not positive, and what C throws.
  Recurrent(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
            const Options& options = {})
      : cell(begin_module(p, C::layer_name,
                          {{"input_size", input_size}, {"hidden_size", hidden_size}}),
             input_size, hidden_size, options) {}

  using SequenceCalls<Recurrent, State>::operator();
  /// x [T, B, D] -> y [T, B, H] and the last state; state, mode and options may each be left out:
  /// see SequenceCalls. Throws ShapeError, or ValueError for lengths outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const ModuleScope scope(cell.w_ih.name(), site);
    const detail::PreparedCall call = cell.prepare(x, state, mode);
    const FusedCell fused = cell.fused();
    const Tensors out =
        fused.over_sequence(fused.spec, call.x, {&call.inputs, 1}, options, call.step, {});
    return {out[0], detail::state_of<State>(&out[1])};
  }

  /// Whether two layers can run as one op: of one cell and one size, with one x.
  static bool can_run_both(const Recurrent& forward, const Recurrent& backward) {
    const C &a = forward.cell, &b = backward.cell;
    return &a.fused().spec == &b.fused().spec && a.output_size() == b.output_size() &&
           a.hidden_size() == b.hidden_size() && a.dropout == b.dropout && a.dropout.input == 0 &&
           a.cell_bound == b.cell_bound;
  }
  /// Both over the same sequence, `backward` from the other end: y [T, B, 2 H] and the last states.
  static Output<BidirectionalState<State>> run_both(const Recurrent& forward,
                                                    const Recurrent& backward, const Tensor& x,
                                                    const BidirectionalState<State>& state,
                                                    const Mode& mode,
                                                    const SequenceOptions& options, Site site) {
    const ModuleScope scope(module_of(forward.cell.w_ih.name()), site);
    const auto prepared = [&](const Recurrent& layer, const State& before) {
      const ModuleScope own(layer.cell.w_ih.name(), site);  // for errors
      return layer.cell.prepare(x, before, mode);
    };
    const detail::PreparedCall there = prepared(forward, state.forward);
    const std::array<CellInputs, 2> inputs{there.inputs, prepared(backward, state.backward).inputs};
    const FusedCell fused = forward.cell.fused();
    const Tensors out = fused.over_sequence(fused.spec, x, inputs, options, there.step, {});
    const Tensor* last = &out[1];
    return {
        out[0],
        {detail::state_of<State>(last), detail::state_of<State>(last + fused.spec.layout.states)}};
  }

  Index output_size() const { return cell.output_size(); }

  C cell;
};

}  // namespace reel::nn
