#pragma once

#include <concepts>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <reel/autograd/params.h>

/// The states of recurrent layers: small structs of tensors, nested as the layers are. An undefined
/// tensor stands for zeros, so `State state;` is the beginning of a sequence. The first axis of
/// every tensor is that of the batch.
namespace reel::nn {

/// A state: `State{}` is the beginning of a sequence, and `state.map(f)` is the same state with
/// f(x) in place of each tensor x. It may have names(), those of its tensors in the order of map.
template <class S>
concept RecurrentState = std::default_initializable<S> &&
    requires(const S& state, Tensor (*f)(const Tensor&)) {
  { state.map(f) } -> std::same_as<S>;
};

namespace detail {
/// Appends the names of a part of a state.
template <class Part>
void add_names(std::vector<std::string>& names, const std::string& prefix, const Part& part);
}  // namespace detail

/// The state of a vanilla RNN or GRU: h [B, H].
struct HiddenState {
  Tensor h;

  /// See RecurrentState.
  template <class F>
  HiddenState map(F&& f) const {
    return {f(h)};
  }
  static std::vector<std::string> names() { return {"h"}; }
};

/// The state of an LSTM: the hidden state h and the cell state c, both [B, H].
struct LstmState {
  Tensor h, c;

  /// See RecurrentState.
  template <class F>
  LstmState map(F&& f) const {
    return {f(h), f(c)};
  }
  static std::vector<std::string> names() { return {"h", "c"}; }
};

/// The states of the two directions.
template <class State>
struct BidirectionalState {
  State forward, backward;

  /// See RecurrentState.
  template <class F>
  BidirectionalState map(F&& f) const {
    return {forward.map(f), backward.map(f)};
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    detail::add_names(names, "forward.", forward);
    detail::add_names(names, "backward.", backward);
    return names;
  }
};

/// The states of a stack's layers, from the first one up: a list for layers of one type, a tuple
/// for several types.
template <class... States>
struct StackedState {
  std::tuple<States...> layers;

  /// See RecurrentState.
  template <class F>
  StackedState map(F&& f) const {
    return std::apply(
        [&](const States&... each) { return StackedState{std::tuple<States...>{each.map(f)...}}; },
        layers);
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    std::size_t i = 0;
    const auto add = [&](const auto& layer) {
      detail::add_names(names, "layers." + std::to_string(i++) + ".", layer);
    };
    std::apply([&](const States&... each) { (add(each), ...); }, layers);
    return names;
  }
};

/// Of one type; empty stands for zeros everywhere.
template <class State>
struct StackedState<State> {
  PoolVector<State> layers;

  /// See RecurrentState.
  template <class F>
  StackedState map(F&& f) const {
    StackedState result;
    for (const State& layer : layers) result.layers.push_back(layer.map(f));
    return result;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < layers.size(); ++i)
      detail::add_names(names, "layers." + std::to_string(i) + ".", layers[i]);
    return names;
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

/// The names of these tensors, such as "layers.0.h"; "0", "1", ... in a state without names().
template <RecurrentState State>
std::vector<std::string> names_of(const State& state) {
  if constexpr (requires { state.names(); }) {
    return state.names();
  } else {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < flatten(state).size(); ++i) names.push_back(std::to_string(i));
    return names;
  }
}

namespace detail {

template <class Part>
void add_names(std::vector<std::string>& names, const std::string& prefix, const Part& part) {
  for (const std::string& name : names_of(part)) names.push_back(prefix + name);
}

/// Throws ShapeError, naming the tensor, if one has no axis of rows or another number of rows than
/// the first. `prefix` precedes the names.
void check_rows(const char* caller, std::string_view prefix, std::span<const std::string> names,
                std::span<const Tensor> tensors, Site site);
/// x[rows], over the first axis.
Tensor take_rows(const Tensor& x, const Tensor& rows);
/// Throws unless `rows` is i32 [K].
void check_selection(const Tensor& rows, Site site);

}  // namespace detail

/// The state of a batch of these rows, i32 [K]: row k of the result is row rows[k] of `state`. Rows
/// may be repeated, reordered or left out, as beam search does after each step; gradients are added
/// up. Undefined tensors stay undefined. Throws DTypeError or ShapeError unless rows are i32 [K],
/// ShapeError for tensors of different batches, ValueError for a row that does not exist.
template <RecurrentState State>
State select_rows(const State& state, const Tensor& rows, Site site = {}) {
  const SiteScope scope(site);
  detail::check_selection(rows, site);
  detail::check_rows("select_rows", "", names_of(state), flatten(state), site);
  return state.map([&](const Tensor& x) { return detail::take_rows(x, rows); });
}

/// `state`, for an input x [B, D] or [T, B, D]. Throws ShapeError, naming the module, unless it is
/// undefined or [B, size].
const Tensor& checked_state(const Tensor& state, const Tensor& x, Index size);
/// `state`, or zeros [B, size] where it is undefined. Throws as checked_state.
Tensor defined_state(const Tensor& state, const Tensor& x, Index size);

/// What a recurrent layer returns: its outputs y [T, B, H] (or [B, H] for a cell) and its last
/// state.
template <class State>
struct Output {
  Tensor y;
  State state;
};

}  // namespace reel::nn
