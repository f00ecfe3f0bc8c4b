#pragma once

#include <concepts>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/calls.h>
#include <reel/nn/init.h>
#include <reel/nn/layer.h>
#include <reel/nn/named_state.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// A layer whose initial state is trained: where the given state is undefined, every row begins
/// with parameters in place of zeros. They are zero at first. The layer's parameters keep their
/// names; those of the initial state have the names of the state's tensors in the part `initial`:
/// `initial.h` [H] and `initial.c` [H] for an Lstm, `initial.layers.0.h` for a stack. The default
/// mode is Eval.
template <class L>
struct WithInitialState : SequenceCalls<WithInitialState<L>, StateOf<L>> {
  static_assert(check_layer<L>());
  using State = StateOf<L>;

  /// All options go to the layer.
  template <class... Options>
  WithInitialState(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                   const Options&... options)
      : WithInitialState(p, L(p, input_size, hidden_size, options...), input_size) {}
  /// Of a layer that exists, which runs one step of zeros to show the form of its state. Throws
  /// ShapeError if the first axis of a tensor in the state is not that of the batch.
  template <std::same_as<L> Made>
  WithInitialState(const ModuleParams& p, Made made, Arg<Index> input_size)
      : layer(std::move(made)) {
    if constexpr (Layer<L>) create_initial(p, input_size);
  }

  using SequenceCalls<WithInitialState, State>::operator();
  /// As the layer itself.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const {
    const SiteScope scope(site);
    if (!x.defined() || x.rank() < 2) return call_part(layer, x, state, mode, options);
    return call_part(layer, x, completed(state, x.size(1)), mode, options);
  }

  /// `state` for a batch of this many rows, with the initial state where it is undefined. One that
  /// does not fit is left for the layer to refuse.
  State completed(State state, Index rows) const {
    if (count(state) != initial.size()) detail::add_layers(state, names_, "");
    if (count(state) != initial.size()) return state;
    std::size_t next = 0;
    return state.map([&](const Tensor& x) {
      const Param& start = initial[next++];
      return x.defined() ? x : broadcast_to(start, start.shape().insert(0, rows));
    });
  }

  Index input_size() const requires(SizedInput<L>) { return input_size_of(layer); }
  Index output_size() const { return layer.output_size(); }

  L layer;
  std::vector<Param> initial;  ///< in the order of the state's tensors

 private:
  void create_initial(const ModuleParams& p, Index input_size) {
    const NoRecord pause;
    const State last = call_part(layer, zeros({1, 1, input_size}, p.dtype()), State{}, Mode(Eval{}),
                                 SequenceOptions{})
                           .state;
    const std::vector<Tensor> tensors = flatten(last);
    names_ = names_of(last);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const Shape& shape = tensors[i].shape();
      if (shape.rank() == 0 || shape[0] != 1)
        throw ShapeError(fmt::format("{}: {} of the state is {} for one row, but its first axis "
                                     "must be that of the batch",
                                     module_name(p, "WithInitialState"), names_[i], shape.str()),
                         SiteScope::current());
      initial.push_back((p / "initial").create(names_[i], shape.erase(0), init::constant(0)));
    }
  }

  static std::size_t count(const State& state) {
    std::size_t tensors = 0;
    state.map([&](const Tensor& x) {
      ++tensors;
      return x;
    });
    return tensors;
  }

  std::vector<std::string> names_;
};

template <class L>
inline constexpr bool is_bidirectional<WithInitialState<L>> = is_bidirectional<L>;

template <Layer L>
WithInitialState(const ModuleParams&, L, Index) -> WithInitialState<L>;

}  // namespace reel::nn
