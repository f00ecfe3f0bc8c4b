#pragma once

#include <concepts>

#include <reel/autograd/recurrent.h>
#include <reel/nn/mode.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// A cell is one step: x [B, D] and a state -> y [B, output_size] and the next state.
template <class C>
concept Cell = requires(const C& cell, const Tensor& x, const typename C::State& state, Mode mode) {
  { cell(x, state, mode) } -> std::same_as<Output<typename C::State>>;
  { cell.output_size() } -> std::convertible_to<Index>;
};

/// A layer runs over a sequence: x [T, B, D] and a state -> y [T, B, output_size] and the last
/// state.
template <class L>
concept Layer = requires(const L& layer, const Tensor& x, const typename L::State& state, Mode mode,
                         const SequenceOptions& options) {
  { layer(x, state, mode, options) } -> std::same_as<Output<typename L::State>>;
  { layer.output_size() } -> std::convertible_to<Index>;
};

/// A layer that is one op and returns its results as they are: what it computes may be put off (see
/// side_by_side.h). It says so by `static constexpr bool one_op = true`.
template <class L>
concept OneOpLayer = Layer<L> && L::one_op;

}  // namespace reel::nn
