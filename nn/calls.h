#pragma once

#include <concepts>

#include <reel/autograd/recurrent.h>
#include <reel/nn/mode.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// The short forms of the call of a cell C that has cell(x, state, mode, site). A user-defined cell
/// gets them by deriving from CellCalls<C, State>, with `using CellCalls::operator();`.
template <class C, class State>
class CellCalls {
 public:
  /// From a state of zeros: cell(x, nn::Train{rng}).
  Output<State> operator()(const Tensor& x, const Mode& mode, Site site = {}) const {
    return static_cast<const C&>(*this)(x, State{}, mode, site);
  }
};

/// The short forms of the call of a layer L that has layer(x, state, mode, options, site): any of
/// state, mode and options may be left out. Without a state a sequence begins with zeros, and
/// without a mode it runs in Eval. A user-defined layer gets them as a cell does.
template <class L, class State>
class SequenceCalls {
 public:
  /// layer(x, nn::Train{rng}), layer(x, nn::Train{rng}, {.lengths = n})
  Output<State> operator()(const Tensor& x, const Mode& mode, const SequenceOptions& options = {},
                           Site site = {}) const {
    return self()(x, State{}, mode, options, site);
  }
  /// layer(x, {.lengths = n}). A template, so that layer(x, {}) means an empty state.
  template <class Options = SequenceOptions>
  requires(std::same_as<Options, SequenceOptions>) Output<State>
  operator()(const Tensor& x, const Options& options, Site site = {}) const {
    return self()(x, State{}, Eval{}, options, site);
  }
  /// layer(x, state, {.lengths = n})
  template <class Options = SequenceOptions>
  requires(std::same_as<Options, SequenceOptions>) Output<State>
  operator()(const Tensor& x, const State& state, const Options& options, Site site = {}) const {
    return self()(x, state, Eval{}, options, site);
  }

 private:
  const L& self() const { return static_cast<const L&>(*this); }
};

}  // namespace reel::nn
