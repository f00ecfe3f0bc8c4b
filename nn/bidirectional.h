#pragma once

#include <reel/autograd/ops.h>
#include <reel/nn/layer.h>

namespace reel::nn {

/// Two layers over the same sequence, one from each end; their outputs are joined: y [T, B, 2 H] is
/// forward's H and backward's H. For tasks that know the whole sequence, such as tagging. Parts
/// `forward` and `backward`.
template <Layer L>
struct Bidirectional {
  using State = BidirectionalState<typename L::State>;

  template <class... Options>
  Bidirectional(const Params& p, Index input_size, Index hidden_size, const Options&... options)
      : forward(p / "forward", input_size, hidden_size, options...),
        backward(p / "backward", input_size, hidden_size, options...) {}

  /// x [T, B, D] -> y [T, B, 2 H] and the last state of each direction: forward's after the last
  /// step, backward's after the first.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    SequenceOptions reversed = options;
    reversed.reverse = !options.reverse;
    auto there = forward(x, state.forward, mode, options);
    auto back = backward(x, state.backward, mode, reversed);
    Tensor y = options.outputs ? concat({there.y, back.y}, -1) : Tensor();
    return {std::move(y), {std::move(there.state), std::move(back.state)}};
  }

  Index output_size() const { return forward.output_size() + backward.output_size(); }

  L forward, backward;
};

}  // namespace reel::nn
