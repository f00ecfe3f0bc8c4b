#pragma once

#include <utility>

#include <reel/autograd/ops.h>
#include <reel/autograd/scope.h>
#include <reel/nn/layer.h>

namespace reel::nn {

/// Makes a layer of any cell: runs it step by step, in ops. A cell of your own needs nothing more
/// to be stacked, run in both directions and over sequences of different lengths.
template <Cell C>
struct Unroll {
  using State = typename C::State;

  explicit Unroll(C cell) : cell(std::move(cell)) {}
  /// Constructs the cell from the same arguments.
  template <class... Arguments>
  explicit Unroll(const Params& p, Arguments&&... arguments)
      : cell(p, std::forward<Arguments>(arguments)...) {}

  /// x [T, B, D] -> y [T, B, H] and the last state. Throws ShapeError, or ValueError for lengths
  /// outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& initial = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    const Tensor lengths = resolve_lengths(options, x, "Unroll");
    const Index steps = x.size(0);
    Tensors outputs(static_cast<std::size_t>(steps));
    State state = initial;
    for (Index s = 0; s < steps; ++s) {
      const Index t = options.reverse ? steps - 1 - s : s;
      const StepScope step(t);
      auto [y, next] = cell(select(x, 0, t), state, mode);
      if (const Tensor active = active_rows(lengths, t); active.defined()) {
        y = where(active, y, scalar(0, y.dtype()));
        next = blend(active, next, state);
      }
      outputs[static_cast<std::size_t>(t)] = y;
      state = std::move(next);
    }
    return {stack(outputs), std::move(state)};
  }

  Index output_size() const { return cell.output_size(); }

  C cell;

 private:
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
};

}  // namespace reel::nn
