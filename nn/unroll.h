#pragma once

#include <concepts>
#include <string>
#include <utility>

#include <reel/autograd/engine/packed_factors.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/observer.h>
#include <reel/autograd/ops.h>
#include <reel/nn/calls.h>
#include <reel/nn/layer.h>
#include <reel/nn/segments.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// Turns any cell into a layer: runs it step by step, in ops. A user-defined cell needs nothing
/// more to be stacked and run in both directions and over sequences of different lengths. The
/// default mode is Eval.
template <class C>
struct Unroll : SequenceCalls<Unroll<C>, StateOf<C>> {
  static_assert(check_cell<C>());
  using State = StateOf<C>;

  /// Of a cell; as a template, so that no conversion makes one of a store.
  template <std::same_as<C> Step>
  explicit Unroll(Step one_step) : cell(std::move(one_step)) {}
  /// Constructs the cell from the same arguments.
  template <class... Args>
  explicit Unroll(const ModuleParams& p, Args&&... arguments)
      : cell(p, std::forward<Args>(arguments)...), module_(p.name()) {}

  using SequenceCalls<Unroll, State>::operator();
  /// x [T, B, D] -> y [T, B, H] and the last state; state, mode and options may each be left out:
  /// see SequenceCalls. Throws ShapeError, also if x has no steps, or ValueError for lengths
  /// outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& initial = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    require_sequence("Unroll", x);
    if (!in_segments(options, "Unroll", site)) return run(x, initial, mode, options, 0);
    return run_in_segments("Unroll", x, initial, mode, options, site,
                           [layer = *this](const Tensor& part, const State& before, const Mode& as,
                                           const SequenceOptions& within, Index first) {
                             return layer.run(part, before, as, within, first);
                           });
  }

  /// One step, x [B, D] -> y [B, H] and the next state: a call of the cell.
  Output<State> step(const Tensor& x, const State& state, const Mode& mode) const {
    // The cell's ops belong to the module unless the cell names one itself.
    const PlaceScope place({module_.empty() ? current_place.module : module_, current_place.step});
    return call_part(cell, x, state, mode);
  }

  Index output_size() const { return cell.output_size(); }

  C cell;

 private:
  // `first` is the index of the first step in the whole sequence.
  Output<State> run(const Tensor& x, const State& initial, const Mode& mode,
                    const SequenceOptions& options, Index first) const {
    const PackedFactors packed;
    const Tensor lengths = resolve_lengths(options, x, "Unroll");
    const Index steps = x.size(0);
    const Tensor real = with_zero_padding(x, lengths);
    Tensors outputs(static_cast<std::size_t>(steps));
    // Padding steps must not read padding values: 0 times NaN is NaN.
    const Tensor begun = active_rows(lengths, 0);
    State state = begun.defined() ? begin(begun, initial) : initial;
    for (Index s = 0; s < steps; ++s) {
      const Index t = options.reverse ? steps - 1 - s : s;
      const StepScope scope(first + t);
      auto [y, next] = step(select(real, 0, t), state, mode);
      if (Observer* observer = Observer::current()) show(*observer, next, options.reverse);
      if (const Tensor active = active_rows(lengths, t); active.defined()) {
        y = where(active, y, scalar(0, y.dtype()));
        next = blend(active, next, state);
      }
      outputs[static_cast<std::size_t>(t)] = y;
      state = std::move(next);
    }
    if (begun.defined()) state = blend(begun, state, initial);
    return {stack(outputs), std::move(state)};
  }

  void show(Observer& observer, const State& state, bool reverse) const {
    if (const std::vector<Tensor> tensors = flatten(state); !tensors.empty())
      observer.step(module_.empty() ? current_place.module : module_, tensors[0], reverse);
  }

  // The initial state of the rows that have steps, and zeros in the others.
  static State begin(const Tensor& begun, const State& initial) {
    return initial.map([&](const Tensor& state) {
      return state.defined() ? where(begun, state, scalar(0, state.dtype())) : state;
    });
  }

  // The next state for active rows; the others stay as they are.
  static State blend(const Tensor& active, const State& next, const State& current) {
    const std::vector<Tensor> before = flatten(current);
    std::size_t i = 0;
    return next.map([&](const Tensor& after) {
      const Tensor held = i < before.size() && before[i].defined()
                              ? before[i]
                              : zeros(after.shape(), after.dtype());
      ++i;
      return where(active, after, held);
    });
  }

  std::string module_;  // for errors and tables; empty if unknown
};

}  // namespace reel::nn
