#pragma once

#include <reel/nn/cells/scan_layer.h>

namespace reel::nn {

/// The options of RgLru.
struct RgLruOptions {
  /// For the matrix and the biases; by default both are uniform with bound 1/√input_size, as in a
  /// Linear.
  Initializer weight_init = {}, bias_init = {};
};

/// The real-gated linear recurrent unit (De et al., "Griffin: mixing gated linear recurrences with
/// local attention for efficient language models", 2024) over a sequence:
///   r = σ(W_r x + b_r)     i = σ(W_i x + b_i)     a = exp(-8 softplus(Λ) ∘ r)
///   h' = a ∘ h + √(1 - a²) ∘ (i ∘ u)
/// with u = x, or u = W_u x where input_size differs from hidden_size. The matrices are dense; in
/// Griffin they are block-diagonal. √(1 - a²) is accurate where a is near 1, and at least 1e-15, so
/// that its slope is finite. Parameters, in blocks of H rows for r, i and where there is one u:
/// `w_ih` [2H, D] or [3H, D]; `b` [2H]; `lambda` [H], drawn such that a for r = 1 is uniform in
/// [0.9, 0.999).
struct RgLru : ScanLayer<RgLru, HiddenState> {
  using Options = RgLruOptions;
  static constexpr const char* name = "RgLru";

  /// Throws ValueError for sizes that are not positive.
  RgLru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
        const Options& options = {});

  /// What a call computes, given x with zeros in the padding.
  Output<State> run(const Tensor& x, const State& state, const SequenceOptions& options) const;

  Index input_size() const { return w_ih.shape()[1]; }
  Index output_size() const { return lambda.shape()[0]; }

  Param b, lambda;
};

}  // namespace reel::nn
