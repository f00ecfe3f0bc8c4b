#pragma once

#include <utility>

#include <reel/autograd/ops.h>
#include <reel/nn/calls.h>
#include <reel/nn/layer.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// Two layers over the same sequence, one from each end, with concatenated outputs: y [T, B, 2 H]
/// is forward's H and backward's H. For tasks where the whole sequence is known, such as tagging.
/// Parts `forward` and `backward`. Rnn, Gru and Lstm run both directions concurrently where each
/// has much work and too few rows for two threads; the bits are the same. The default mode is Eval.
template <class L>
struct Bidirectional : SequenceCalls<Bidirectional<L>, BidirectionalState<StateOf<L>>> {
  static_assert(check_layer<L>());
  using State = BidirectionalState<StateOf<L>>;

  template <class... Options>
  Bidirectional(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                const Options&... options)
      : forward(p / "forward", input_size, hidden_size, options...),
        backward(p / "backward", input_size, hidden_size, options...) {}

  using SequenceCalls<Bidirectional, State>::operator();
  /// x [T, B, D] -> y [T, B, 2 H] and the last state of each direction: forward's after the last
  /// step, backward's after the first; state, mode and options may each be left out: see
  /// SequenceCalls.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    SequenceOptions reversed = options;
    reversed.reverse = !options.reverse;
    if constexpr (RunsBothWays<L>)
      if (L::can_run_both(forward, backward))
        return L::run_both(forward, backward, x, state, options, site);
    auto there = call_part(forward, x, state.forward, mode, options);
    auto back = call_part(backward, x, state.backward, mode, reversed);
    Tensor y = options.outputs ? concat({there.y, back.y}, -1) : Tensor();
    return {std::move(y), {std::move(there.state), std::move(back.state)}};
  }

  Index output_size() const { return forward.output_size() + backward.output_size(); }

  L forward, backward;
};

}  // namespace reel::nn
