#pragma once

#include <string>
#include <vector>

#include <fmt/core.h>

#include <reel/nn/calls.h>
#include <reel/nn/dropout.h>
#include <reel/nn/layer.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

struct StackOptions {
  int layers = 2;
  /// Dropout rate between the layers in training; none after the last.
  double dropout = 0;
};

/// Throws ShapeError unless the state is empty or has `layers` layers.
template <class State>
void check_depth(const StackedState<State>& state, std::size_t layers, Site site) {
  if (!state.layers.empty() && state.layers.size() != layers)
    throw ShapeError(
        fmt::format("Stacked: the state has {} layers, the stack {}", state.layers.size(), layers),
        site);
}

/// Layers on top of each other: the output of one is the input of the next. Parts `0`, `1`, ...
/// The default mode is Eval, without dropout: to train, call it with nn::Train{rng}.
template <class L>
struct Stacked : SequenceCalls<Stacked<L>, StackedState<StateOf<L>>> {
  static_assert(check_layer<L>());
  using State = StackedState<StateOf<L>>;

  /// Options other than the stack's own go to every layer. Throws ValueError for sizes that are not
  /// positive or a dropout rate outside [0, 1).
  template <class... Options>
  Stacked(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const StackOptions& stack = {}, const Options&... options)
      : dropout(stack.dropout) {
    require_positive(
        p, "Stacked",
        {{"input_size", input_size}, {"hidden_size", hidden_size}, {"layers", stack.layers}});
    for (int i = 0; i < stack.layers; ++i)
      layers.emplace_back(p / std::to_string(i),
                          i == 0 ? Index(input_size) : layers.back().output_size(), hidden_size,
                          options...);
  }

  using SequenceCalls<Stacked, State>::operator();
  /// x [T, B, D] -> y [T, B, output_size] and the layers' last states; state, mode and options may
  /// each be left out: see SequenceCalls. Throws ShapeError, also for
  /// a state of another number of layers.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    check_depth(state, layers.size(), site);
    Output<State> result{x, {}};
    SequenceOptions below_top = options;
    below_top.outputs = true;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (i > 0) result.y = dropout(result.y, mode);
      auto [y, last] = call_part(layers[i], result.y,
                                 state.layers.empty() ? typename L::State{} : state.layers[i], mode,
                                 i + 1 < layers.size() ? below_top : options);
      result.y = std::move(y);
      result.state.layers.push_back(std::move(last));
    }
    return result;
  }

  Index output_size() const { return layers.back().output_size(); }

  std::vector<L> layers;
  Dropout dropout;
};

}  // namespace reel::nn
