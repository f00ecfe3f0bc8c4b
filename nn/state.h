#pragma once

#include <concepts>
#include <span>
#include <vector>

#include <reel/autograd/params.h>

/// The states of recurrent layers: small structs of tensors, nested as the layers are. An undefined
/// tensor stands for zeros, so `State state;` is the beginning of a sequence.
namespace reel::nn {

/// A state: `State{}` is the beginning of a sequence, and `state.map(f)` is the same state with
/// f(x) in place of each tensor x.
template <class S>
concept RecurrentState = std::default_initializable<S> &&
    requires(const S& state, Tensor (*f)(const Tensor&)) {
  { state.map(f) } -> std::same_as<S>;
};

/// The state of a vanilla RNN or GRU: h [B, H].
struct HiddenState {
  Tensor h;

  template <class F>
  HiddenState map(F&& f) const {
    return {f(h)};
  }
};

/// The state of an LSTM: the hidden state h and the cell state c, both [B, H].
struct LstmState {
  Tensor h, c;

  template <class F>
  LstmState map(F&& f) const {
    return {f(h), f(c)};
  }
};

/// The states of the two directions.
template <class State>
struct BidirectionalState {
  State forward, backward;

  template <class F>
  BidirectionalState map(F&& f) const {
    return {forward.map(f), backward.map(f)};
  }
};

/// The states of a stack, from the first layer up; empty stands for zeros everywhere.
template <class State>
struct StackedState {
  PoolVector<State> layers;

  template <class F>
  StackedState map(F&& f) const {
    StackedState result;
    for (const State& layer : layers) result.layers.push_back(layer.map(f));
    return result;
  }
};

/// The same state without its history: the value goes on into the next window, the gradient stops
/// here. Truncated backpropagation through time is this call between two windows.
template <RecurrentState State>
State detach(const State& state) {
  return state.map([](const Tensor& x) { return x.detach(); });
}

/// All tensors of a state in a fixed order, for a checkpoint ...
template <RecurrentState State>
std::vector<Tensor> flatten(const State& state) {
  std::vector<Tensor> tensors;
  state.map([&](const Tensor& x) {
    tensors.push_back(x);
    return x;
  });
  return tensors;
}

/// ... and back: a state with the structure of `like` made of them. Throws ValueError if their
/// number differs.
template <RecurrentState State>
State unflatten(const State& like, std::span<const Tensor> tensors, Site site = {}) {
  std::size_t next = 0;
  State state = like.map([&](const Tensor&) {
    return next < tensors.size() ? tensors[next++]
                                 : throw ValueError("unflatten: too few tensors", site);
  });
  if (next != tensors.size()) throw ValueError("unflatten: too many tensors", site);
  return state;
}

/// `state`, for an input x [B, D] or [T, B, D] and recurrent weights [.., H]. Throws ShapeError
/// unless it is undefined or [B, H].
const Tensor& checked_state(const Tensor& state, const Tensor& x, const Param& w_hh);
/// `state`, or zeros [B, H] where it is undefined, for an input x [B, D] or [T, B, D] and recurrent
/// weights [.., H]. Throws ShapeError for a state of another shape.
Tensor defined_state(const Tensor& state, const Tensor& x, const Param& w_hh);

/// What a recurrent layer returns: its outputs y [T, B, H] (or [B, H] for a cell) and its last
/// state.
template <class State>
struct Output {
  Tensor y;
  State state;
};

}  // namespace reel::nn
