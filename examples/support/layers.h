#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>

namespace reel::examples {

/// The layers that programs let the user choose from.
inline const std::vector<std::string> layer_names{"rnn", "gru", "lstm"};

/// A type as a value.
template <class L>
struct Type {
  using type = L;
};

/// Calls f(Type<L>()) for the layer L of that name.
template <class F>
auto with_layer(std::string_view name, F&& f) {
  if (name == "rnn") return f(Type<nn::Rnn>());
  if (name == "lstm") return f(Type<nn::Lstm>());
  return f(Type<nn::Gru>());
}

/// The options of a layer, with that initial bias if it has a forget gate.
template <class L>
typename L::Options with_forget_bias(double bias) {
  typename L::Options options;
  if constexpr (requires { options.forget_bias; }) options.forget_bias = bias;
  return options;
}

}  // namespace reel::examples
