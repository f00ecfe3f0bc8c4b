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

namespace detail {
template <class C>
struct StateOf {
  using type = HiddenState;
};
template <class C>
requires requires { typename C::State; }
struct StateOf<C> {
  using type = typename C::State;
};
}  // namespace detail

/// C::State, or a stand-in if there is none, so that the compiler reports only what C lacks.
template <class C>
using StateOf = typename detail::StateOf<C>::type;

/// Reports in one line what C lacks to be a cell that a layer can be made of.
template <class C>
constexpr bool check_cell() {
  if constexpr (!requires { typename C::State; }) {
    static_assert(
        requires { typename C::State; }, "a cell has a type State: see nn/state.h");
  } else if constexpr (!RecurrentState<typename C::State>) {
    static_assert(RecurrentState<typename C::State>,
                  "the State of a cell has map(f), which returns it with f of each of its tensors: "
                  "see HiddenState in nn/state.h");
  } else {
    static_assert(!Layer<C>, "a layer runs over a sequence by itself: leave out Unroll");
    static_assert(Layer<C> || Cell<C>,
                  "a cell has output_size() and operator()(x, state, mode), which returns "
                  "nn::Output<State>: see Cell in nn/layer.h");
  }
  return true;
}

/// Reports in one line what L lacks to be a layer.
template <class L>
constexpr bool check_layer() {
  if constexpr (Layer<L>) {
  } else if constexpr (Cell<L>) {
    static_assert(!Cell<L>, "a cell is one step; Unroll<C> makes a layer of a cell C");
  } else {
    static_assert(Layer<L>,
                  "a layer has a State, output_size() and operator()(x, state, mode, options), "
                  "which returns nn::Output<State>: see Layer in nn/layer.h");
  }
  return true;
}

/// Whether a layer, or a part of it, also runs from the end of the sequence, so that a single step
/// cannot be taken.
template <class L>
inline constexpr bool is_bidirectional = false;

/// A layer that knows the size of its inputs; our own do.
template <class L>
concept SizedInput = requires(const L& layer) {
  { layer.input_size() } -> std::convertible_to<Index>;
}
|| requires(const L& layer) {
  { layer.cell.input_size() } -> std::convertible_to<Index>;
};

/// The number of features of its inputs.
template <SizedInput L>
Index input_size_of(const L& layer) {
  if constexpr (requires { layer.input_size(); })
    return layer.input_size();
  else
    return layer.cell.input_size();
}

/// A layer that runs over a sequence in both directions as one op.
template <class L>
concept RunsBothWays = Layer<L> && requires(const L& layer) {
  { L::can_run_both(layer, layer) } -> std::same_as<bool>;
};

}  // namespace reel::nn
