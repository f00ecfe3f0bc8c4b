#pragma once

#include <string>
#include <vector>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/recurrent.h>
#include <reel/nn/calls.h>
#include <reel/nn/mode.h>
#include <reel/nn/segments.h>
#include <reel/nn/sizes.h>
#include <reel/nn/state.h>

namespace reel::nn {

/// What the layers have in common whose gates do not see the state, so that their recurrence is a
/// linear_scan: w_ih, the weights of all gates in blocks of H rows, and the call over a sequence.
/// A layer L has a `name` and `run(x, state, options)`, for an x without steps to ignore: the
/// padding is zero.
template <class L, class S>
struct ScanLayer : SequenceCalls<L, S> {
  using State = S;

  using SequenceCalls<L, S>::operator();
  /// x [T, B, D] -> y [T, B, H] and the last state; state, mode and options may each be left out:
  /// see SequenceCalls. Throws ShapeError, or ValueError for lengths outside 0 .. T.
  Output<S> operator()(const Tensor& x, const S& state = {}, const Mode& mode = Eval{},
                       const SequenceOptions& options = {}, Site site = {}) const {
    const L& layer = static_cast<const L&>(*this);
    const ModuleScope scope(w_ih.name(), site);
    require_sequence(L::name, x);
    require_features(L::name, w_ih, x, layer.input_size(), SiteScope::current());
    if (!in_segments(options, L::name, site)) return run_without_padding(layer, x, state, options);
    return run_in_segments(L::name, x, state, mode, options, site,
                           [layer, site](const Tensor& part, const S& before, const Mode&,
                                         const SequenceOptions& within, Index) {
                             const ModuleScope place(layer.w_ih.name(), site);
                             return run_without_padding(layer, part, before, within);
                           });
  }

  Param w_ih;

 private:
  static Output<S> run_without_padding(const L& layer, const Tensor& x, const S& state,
                                       const SequenceOptions& options) {
    const Tensor lengths = resolve_lengths(options, x, L::name);
    return layer.run(with_zero_padding(x, lengths), state, options);
  }
};

/// Initial values of these layers: by default uniform with bound 1/√input_size, as in a Linear.
struct ScanInitializers {
  /// Throws ValueError, naming the layer, for sizes that are not positive.
  ScanInitializers(const ModuleParams& p, const char* layer, Index input_size, Index hidden_size,
                   const Initializer& weight_init, const Initializer& bias_init);
  Initializer weight, bias;
};

}  // namespace reel::nn
