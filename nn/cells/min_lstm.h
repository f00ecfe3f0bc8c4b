#pragma once

#include <reel/nn/cells/min_gru.h>

namespace reel::nn {

/// The options of MinLstm.
struct MinLstmOptions {
  /// Whether the gates are divided by their sum, so that the state is a mean of candidates and its
  /// scale does not depend on the length.
  bool normalise = true;
  MinCandidate candidate = MinCandidate::positive;
  /// By default both are uniform with bound 1/√input_size, as in a Linear.
  Initializer weight_init = {}, bias_init = {};
};

/// The minimal LSTM (Feng et al., "Were RNNs all we needed?", 2024), without an output gate and
/// with gates that do not see the state, over a sequence:
///   i, f = σ(W x + b)     g = the candidate of W_g x + b_g, by MinCandidate
///   h' = f / (f + i) ∘ h + i / (f + i) ∘ g      or, not normalised, f ∘ h + i ∘ g
/// The quotients are computed as σ of a difference of logarithms, also where both gates are 0 in
/// the dtype. Parameters, in blocks of H rows for i, f, g: `w_ih` [3H, D], `b` [3H].
struct MinLstm : ScanLayer<MinLstm, HiddenState> {
  using Options = MinLstmOptions;
  static constexpr const char* name = "MinLstm";

  /// Throws ValueError for sizes that are not positive.
  MinLstm(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const Options& options = {});

  /// What a call computes, given x with zeros in the padding.
  Output<State> run(const Tensor& x, const State& state, const SequenceOptions& options) const;

  Index input_size() const { return w_ih.shape()[1]; }
  Index output_size() const { return w_ih.shape()[0] / 3; }

  Param b;
  MinCandidate candidate;
  bool normalise;
};

}  // namespace reel::nn
