#pragma once

#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <reel/nn/calls.h>
#include <reel/nn/dropout.h>
#include <reel/nn/layer.h>
#include <reel/nn/layer_norm.h>
#include <reel/nn/linear.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// How the output of a layer is joined with its input x, from the second layer of a stack on:
///   none      y = layer(x)
///   residual  y = layer(x) + x  (He et al., 2016; for stacks of LSTMs Wu et al., 2016)
///   highway   y = t ∘ layer(x) + (1 - t) ∘ x  with t = σ(W x + b)  (Srivastava et al., 2015; for
///             stacks of LSTMs Zhang et al., 2016)
/// The first layer has none, as its input usually has another size.
enum class Connection { none, residual, highway };

/// The options of Stacked.
struct StackOptions {
  /// By default as many as there are widths or types of layers, otherwise 2.
  std::optional<int> layers = {};
  /// Dropout rate of the input of each layer but the first, in training. A connection passes the
  /// input without dropout.
  double dropout = 0;
  /// The hidden size of each layer, if they are not all the same; the last one is hidden_size.
  std::vector<Index> widths = {};
  Connection connection = Connection::none;
  /// Layer normalisation of the output of each layer but the last, after the connection.
  bool layer_norm = false;
};

/// What a stack has between its layers, which are numbered from 0: parts `norm0`, ... and
/// `highway1`, ..., linear layers whose bias is -1 at first, so that most of x passes.
class StackLinks {
 public:
  /// What a layer takes and returns.
  struct LayerSizes {
    std::optional<Index> input;  ///< if it is known
    Index output;
  };
  /// Throws ValueError for layers that do not fit on top of each other, or a connection past one
  /// whose output has another size than its input.
  StackLinks(const ModuleParams& p, const StackOptions& options, std::span<const LayerSizes> sizes);

  /// The input of layer i, given the output of the layer below; zero in the padding.
  Tensor input(std::size_t i, const Tensor& below, const SequenceOptions& options = {}) const;
  /// What the layer reads of its input.
  Tensor dropped(std::size_t i, const Tensor& x, const Mode& mode) const;
  /// The output of layer i in the stack: that of the layer itself, y, joined with its input x. An
  /// undefined y stays so.
  Tensor output(std::size_t i, const Tensor& x, const Tensor& y) const;

  Dropout dropout;
  Connection connection;
  std::vector<LayerNorm> norms;
  std::vector<Linear> gates;
};

namespace detail {

template <class... Ls>
struct Layers {
  using type = std::tuple<Ls...>;
};
template <class L>
struct Layers<L> {
  using type = std::vector<L>;
};
/// A std::vector of layers of one type, a std::tuple for several types.
template <class... Ls>
using LayersOf = typename Layers<Ls...>::type;

template <class L>
std::size_t layer_count(const std::vector<L>& layers) {
  return layers.size();
}
template <class... Ls>
constexpr std::size_t layer_count(const std::tuple<Ls...>&) {
  return sizeof...(Ls);
}

/// Calls f(i, layer) for each layer, where i is a constant for layers in a tuple.
template <class L, class F>
void each_layer(const std::vector<L>& layers, F&& f) {
  for (std::size_t i = 0; i < layers.size(); ++i) f(i, layers[i]);
}
template <class... Ls, class F>
void each_layer(const std::tuple<Ls...>& layers, F&& f) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (f(std::integral_constant<std::size_t, I>(), std::get<I>(layers)), ...);
  }
  (std::index_sequence_for<Ls...>());
}

template <class State>
State state_of_layer(const StackedState<State>& state, std::size_t i) {
  return state.layers.empty() ? State{} : state.layers[i];
}
template <class... States, std::size_t I>
const auto& state_of_layer(const StackedState<States...>& state,
                           std::integral_constant<std::size_t, I>) {
  return std::get<I>(state.layers);
}
/// For the layers in their order.
template <class State>
void set_state_of_layer(StackedState<State>& state, std::size_t, State layer) {
  state.layers.push_back(std::move(layer));
}
template <class... States, std::size_t I, class State>
void set_state_of_layer(StackedState<States...>& state, std::integral_constant<std::size_t, I>,
                        State layer) {
  std::get<I>(state.layers) = std::move(layer);
}

/// The hidden sizes of a stack's layers, given the number of its types. Throws ValueError for sizes
/// that are not positive or contradict each other, and for a dropout rate outside [0, 1).
std::vector<Index> stack_widths(const ModuleParams& p, Index input_size, Index hidden_size,
                                const StackOptions& options, std::size_t types);
/// Throws ValueError, as layers that exist have their sizes, or if there are none.
void check_made(const ModuleParams& p, const StackOptions& options, std::size_t layers);

}  // namespace detail

/// Throws ShapeError unless the state is empty or has `layers` layers.
template <class State>
void check_depth(const StackedState<State>& state, std::size_t layers, Site site) {
  if (!state.layers.empty() && state.layers.size() != layers)
    throw ShapeError(
        fmt::format("Stacked: the state has {} layers, the stack {}", state.layers.size(), layers),
        site);
}
template <class First, class Second, class... More>
void check_depth(const StackedState<First, Second, More...>&, std::size_t, Site) {}

/// Layers on top of each other: the output of one is the input of the next. Stacked<L> has any
/// number of layers of one type, Stacked<Gru, Bidirectional<Lstm>> one of each. Parts `0`, `1`,
/// ..., and those of StackLinks. The default mode is Eval, without dropout: to train, call it with
/// nn::Train{rng}.
template <class... Ls>
struct Stacked : SequenceCalls<Stacked<Ls...>, StackedState<StateOf<Ls>...>> {
  static_assert(sizeof...(Ls) > 0, "a stack has a layer: nn::Stacked<nn::Lstm>");
  static_assert((check_layer<Ls>() && ...));
  using State = StackedState<StateOf<Ls>...>;
  using Layers = detail::LayersOf<Ls...>;

  /// Further options go to every layer of a Stacked<L>; one of several types takes one for each of
  /// its layers. Throws ValueError for sizes that are not positive or do not fit, or a dropout rate
  /// outside [0, 1).
  template <class... Options>
  Stacked(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const StackOptions& stack = {}, const Options&... options)
      : layers(made(p, input_size,
                    detail::stack_widths(p, input_size, hidden_size, stack, sizeof...(Ls)),
                    options...)),
        links(p, stack, sizes()) {}
  /// Of layers that exist, a std::vector or a std::tuple; `p` is for what lies between them. Throws
  /// ValueError for layers that do not fit, or sizes in the options.
  Stacked(const ModuleParams& p, const StackOptions& stack, Layers existing)
      : layers(checked(p, stack, std::move(existing))), links(p, stack, sizes()) {}

  using SequenceCalls<Stacked, State>::operator();
  /// x [T, B, D] -> y [T, B, output_size] and the layers' last states; state, mode and options may
  /// each be left out: see SequenceCalls. Throws ShapeError, also for
  /// a state of another number of layers.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    const std::size_t depth = detail::layer_count(layers);
    check_depth(state, depth, site);
    Output<State> result{x, {}};
    SequenceOptions below_top = options;
    below_top.outputs = true;
    detail::each_layer(layers, [&](auto i, const auto& layer) {
      const Tensor below = links.input(i, result.y, options);
      auto output =
          call_part(layer, links.dropped(i, below, mode), detail::state_of_layer(state, i), mode,
                    i + 1 < depth ? below_top : options);
      result.y = links.output(i, below, output.y);
      detail::set_state_of_layer(result.state, i, std::move(output.state));
    });
    return result;
  }

  Index input_size() const requires(SizedInput<std::tuple_element_t<0, std::tuple<Ls...>>>) {
    return *sizes().front().input;
  }
  Index output_size() const { return sizes().back().output; }

  Layers layers;
  StackLinks links;

 private:
  static constexpr bool one_type = sizeof...(Ls) == 1;

  template <class... Options>
  static Layers made(const ModuleParams& p, Index input_size, const std::vector<Index>& widths,
                     const Options&... options) {
    std::size_t next = 0;
    Index below = input_size;
    const auto one = [&]<class L>(std::type_identity<L>, const auto&... own) {
      L layer(p / std::to_string(next), below, widths[next], own...);
      below = layer.output_size();
      ++next;
      return layer;
    };
    if constexpr (one_type) {
      Layers layers;
      for (std::size_t i = 0; i < widths.size(); ++i)
        layers.push_back(one(std::type_identity<Ls>()..., options...));
      return layers;
    } else if constexpr (sizeof...(Options) == 0) {
      return Layers{one(std::type_identity<Ls>())...};
    } else {
      static_assert(sizeof...(Options) == sizeof...(Ls),
                    "a stack of several types takes options for each of its layers, or for none");
      if constexpr (sizeof...(Options) == sizeof...(Ls))
        return Layers{one(std::type_identity<Ls>(), options)...};
    }
  }

  static Layers checked(const ModuleParams& p, const StackOptions& stack, Layers existing) {
    detail::check_made(p, stack, detail::layer_count(existing));
    return existing;
  }

  std::vector<StackLinks::LayerSizes> sizes() const {
    std::vector<StackLinks::LayerSizes> result;
    detail::each_layer(layers, [&]<class L>(auto, const L& layer) {
      std::optional<Index> input;
      if constexpr (SizedInput<L>) input = input_size_of(layer);
      result.push_back({input, layer.output_size()});
    });
    return result;
  }
};

template <class... Ls>
inline constexpr bool is_bidirectional<Stacked<Ls...>> = (is_bidirectional<Ls> || ...);

template <class L>
Stacked(const ModuleParams&, const StackOptions&, std::vector<L>) -> Stacked<L>;
template <class... Ls>
Stacked(const ModuleParams&, const StackOptions&, std::tuple<Ls...>) -> Stacked<Ls...>;

}  // namespace reel::nn
