#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/nn/named_tensors.h>
#include <reel/nn/state.h>

/// States as named tensors, so that a file can hold them.
namespace reel::nn {

namespace detail {

NamedTensors named_state(std::string_view prefix, std::span<const std::string> names,
                         std::span<const Tensor> tensors);
/// The names under a prefix, without it. Throws ValueError if there are none.
std::vector<std::string> state_names(const NamedTensors& source, std::string_view prefix,
                                     Site site);
std::vector<Tensor> state_tensors(const NamedTensors& source, std::string_view prefix,
                                  std::span<const std::string> names, Site site);
/// Whether the names are those of a state without any layers.
bool without_tensors(std::span<const std::string> names);
bool any_begins_with(std::span<const std::string> names, std::string_view prefix);

// Gives the stacks in a state the layers that occur in the names of its tensors, which begin with
// `prefix`; stacks that have layers keep them.
template <class State>
void add_layers(State&, std::span<const std::string>, const std::string&) {}
template <class State>
void add_layers(BidirectionalState<State>& state, std::span<const std::string> names,
                const std::string& prefix);
template <class State>
void add_layers(StackedState<State>& state, std::span<const std::string> names,
                const std::string& prefix);
template <class First, class Second, class... More>
void add_layers(StackedState<First, Second, More...>& state, std::span<const std::string> names,
                const std::string& prefix);

inline std::string layer_prefix(const std::string& prefix, std::size_t i) {
  return prefix + "layers." + std::to_string(i) + ".";
}

template <class State>
void add_layers(BidirectionalState<State>& state, std::span<const std::string> names,
                const std::string& prefix) {
  add_layers(state.forward, names, prefix + "forward.");
  add_layers(state.backward, names, prefix + "backward.");
}

template <class State>
void add_layers(StackedState<State>& state, std::span<const std::string> names,
                const std::string& prefix) {
  if (state.layers.empty())
    while (any_begins_with(names, layer_prefix(prefix, state.layers.size())))
      state.layers.emplace_back();
  for (std::size_t i = 0; i < state.layers.size(); ++i)
    add_layers(state.layers[i], names, layer_prefix(prefix, i));
}

template <class First, class Second, class... More>
void add_layers(StackedState<First, Second, More...>& state, std::span<const std::string> names,
                const std::string& prefix) {
  std::size_t i = 0;
  std::apply([&](auto&... layers) { (add_layers(layers, names, layer_prefix(prefix, i++)), ...); },
             state.layers);
}

}  // namespace detail

/// The values of a state under their names, `state.layers.0.h`, ...: to be saved, by itself or with
/// the parameters. An undefined tensor, which stands for zeros, becomes an empty one of shape [0].
///
///     nn::NamedTensors content = nn::from_params(params);
///     content.insert("", nn::from_state(state));
template <RecurrentState State>
NamedTensors from_state(const State& state, std::string_view prefix = "state.") {
  return detail::named_state(prefix, names_of(state), flatten(state));
}

/// The state that from_state gave these names, among other tensors. Throws ValueError if a tensor
/// of the state is missing or another name begins with the prefix, and ShapeError if the tensors
/// are not of one batch; both name the tensor.
template <RecurrentState State>
State to_state(const NamedTensors& source, std::string_view prefix = "state.", Site site = {}) {
  const std::vector<std::string> names = detail::state_names(source, prefix, site);
  State state;
  if (detail::without_tensors(names)) return state;
  detail::add_layers(state, names, "");
  return unflatten(state, detail::state_tensors(source, prefix, names_of(state), site), site);
}

}  // namespace reel::nn
