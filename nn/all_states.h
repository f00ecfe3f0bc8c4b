#pragma once

#include <vector>

#include <fmt/format.h>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/layer.h>

namespace reel::nn {

/// A layer's outputs y [T, B, H] and its states after every step: tensors [T, B, ..] in place of
/// [B, ..], such as the cell states of an Lstm. In the padding of a row its state is unchanged.
/// With `reverse` index t has the state after the layer, which runs backwards, has read step t. The
/// layer is called once for every step, which is slower than one call, and in training draws other
/// random numbers. Throws ShapeError for an x without steps, ValueError for options that exclude
/// each other: `segment` and `outputs = false` keep less.
template <Layer L>
Output<StateOf<L>> all_states(const L& layer, const Tensor& x, const StateOf<L>& initial = {},
                              const Mode& mode = Eval{}, const SequenceOptions& options = {},
                              Site site = {}) {
  static_assert(!is_bidirectional<L>,
                "the directions of a bidirectional layer reach a step at different times: call "
                "all_states for each");
  const SiteScope scope(site);
  if (options.segment != 0 || !options.outputs)
    throw ValueError("all_states: leave out segment and outputs: everything is kept", site);
  if (!x.defined() || x.rank() != 3 || x.size(0) == 0)
    throw ShapeError(fmt::format("all_states: x must be [T, B, D] with at least one step, not {}",
                                 x.defined() ? x.shape().str() : "undefined"),
                     site);
  const Tensor lengths = resolve_lengths(options, x, "all_states");
  const Index steps = x.size(0);
  Tensors outputs(static_cast<std::size_t>(steps));
  std::vector<std::vector<Tensor>> after(outputs.size());  // each step, its state's tensors
  StateOf<L> state = initial;
  for (Index s = 0; s < steps; ++s) {
    const Index t = options.reverse ? steps - 1 - s : s;
    const std::size_t at = static_cast<std::size_t>(t);
    const StepScope step(t);
    SequenceOptions one;
    if (const Tensor active = active_rows(lengths, t); active.defined())
      one.lengths = reshape(active, {x.size(1)});
    auto output = call_part(layer, slice(x, 0, t, t + 1), state, mode, one);
    state = std::move(output.state);
    outputs[at] = std::move(output.y);
    after[at] = flatten(state);
  }
  std::vector<Tensor> stacked;
  for (std::size_t i = 0; i < after[0].size(); ++i) {
    Tensors of_steps;
    for (const std::vector<Tensor>& tensors : after) of_steps.push_back(tensors[i]);
    stacked.push_back(stack(of_steps));
  }
  return {concat(outputs, 0), unflatten(state, stacked)};
}

}  // namespace reel::nn
