#pragma once

#include <concepts>
#include <utility>

#include <fmt/format.h>

#include <reel/autograd/ops.h>
#include <reel/nn/calls.h>
#include <reel/nn/layer.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// How the outputs of two directions become one: y [T, B, 2 H], forward's and then backward's, or
/// [T, B, H].
enum class Merge { concat, sum, mean };

/// The options of Bidirectional.
struct BidirectionalOptions {
  Merge merge = Merge::concat;
};

/// Two layers over the same sequence, one from each end (Schuster and Paliwal, 1997). For tasks
/// where the whole sequence is known, such as tagging. L may be any layer, a stack included, and a
/// stack may consist of bidirectional layers. Parts `forward` and `backward`. Two layers of one
/// cell and one size, such as Lstm, run as one op. The default mode is Eval.
template <class L>
struct Bidirectional : SequenceCalls<Bidirectional<L>, BidirectionalState<StateOf<L>>> {
  static_assert(check_layer<L>());
  using State = BidirectionalState<StateOf<L>>;

  /// Other options go to both layers.
  template <class... Options>
  Bidirectional(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                const BidirectionalOptions& both, const Options&... options)
      : forward(p / "forward", input_size, hidden_size, options...),
        backward(p / "backward", input_size, hidden_size, options...),
        merge(both.merge) {}
  template <class... Options>
  Bidirectional(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                const Options&... options)
      : Bidirectional(p, input_size, hidden_size, BidirectionalOptions{}, options...) {}
  /// Of two layers that exist. Throws ValueError for a sum or mean of different sizes.
  template <std::same_as<L> Made>
  Bidirectional(Made there, Made back, const BidirectionalOptions& both = {}, Site site = {})
      : forward(std::move(there)), backward(std::move(back)), merge(both.merge) {
    if (merge != Merge::concat && forward.output_size() != backward.output_size())
      throw ValueError(fmt::format("Bidirectional: outputs of sizes {} and {} cannot be added",
                                   forward.output_size(), backward.output_size()),
                       site);
  }

  using SequenceCalls<Bidirectional, State>::operator();
  /// x [T, B, D] -> y [T, B, output_size] and the last state of each direction: forward's after the
  /// last step, backward's after the first; state, mode and options may each be left out: see
  /// SequenceCalls.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    SequenceOptions reversed = options;
    reversed.reverse = !options.reverse;
    if constexpr (RunsBothWays<L>)
      if (L::can_run_both(forward, backward)) {
        Output<State> both = L::run_both(forward, backward, x, state, mode, options, site);
        if (both.y.defined() && merge != Merge::concat) {
          const Tensors halves = split(both.y, 2, -1);
          both.y = merged(halves[0], halves[1]);
        }
        return both;
      }
    auto there = call_part(forward, x, state.forward, mode, options);
    auto back = call_part(backward, x, state.backward, mode, reversed);
    Tensor y = options.outputs ? merged(there.y, back.y) : Tensor();
    return {std::move(y), {std::move(there.state), std::move(back.state)}};
  }

  Index input_size() const requires(SizedInput<L>) { return input_size_of(forward); }
  Index output_size() const {
    return forward.output_size() + (merge == Merge::concat ? backward.output_size() : 0);
  }

  L forward, backward;
  Merge merge;

 private:
  Tensor merged(const Tensor& there, const Tensor& back) const {
    if (merge == Merge::concat) return concat({there, back}, -1);
    return merge == Merge::sum ? there + back : 0.5 * (there + back);
  }
};

template <class L>
inline constexpr bool is_bidirectional<Bidirectional<L>> = true;

template <class L>
Bidirectional(L, L) -> Bidirectional<L>;
template <class L>
Bidirectional(L, L, const BidirectionalOptions&) -> Bidirectional<L>;

}  // namespace reel::nn
