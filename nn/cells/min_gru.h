#pragma once

#include <reel/nn/cells/scan_layer.h>

namespace reel::nn {

/// What minGRU and minLSTM make of a candidate's linear projection p.
enum class MinCandidate {
  /// p + 0.5 where p >= 0, elsewhere σ(p): positive, so that the state, a mean of candidates, keeps
  /// one sign. This is the paper's g; it makes the recurrence computable in logarithms.
  positive,
  /// p itself: signed, as in the paper's shorter form.
  linear,
  /// tanh(p): signed and bounded, as in a GRU.
  tanh
};

/// The candidate from its projection.
Tensor min_candidate(const Tensor& projection, MinCandidate candidate);

/// The options of MinGru.
struct MinGruOptions {
  MinCandidate candidate = MinCandidate::positive;
  /// By default both are uniform with bound 1/√input_size, as in a Linear.
  Initializer weight_init = {}, bias_init = {};
};

/// The minimal gated recurrent unit (Feng et al., "Were RNNs all we needed?", 2024), a GRU whose
/// gate does not see the state, over a sequence:
///   z  = σ(W_z x + b_z)     n = g(W_n x + b_n)
///   h' = (1 - z) ∘ h + z ∘ n
/// with g by MinCandidate. The update gate z is the share of the new: 1 - z of reel::gru.
/// Parameters, in blocks of H rows for z, n: `w_ih` [2H, D], `b` [2H].
struct MinGru : ScanLayer<MinGru, HiddenState> {
  using Options = MinGruOptions;
  static constexpr const char* name = "MinGru";

  /// Throws ValueError for sizes that are not positive.
  MinGru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
         const Options& options = {});

  /// What a call computes, given x with zeros in the padding.
  Output<State> run(const Tensor& x, const State& state, const SequenceOptions& options) const;

  Index input_size() const { return w_ih.shape()[1]; }
  Index output_size() const { return w_ih.shape()[0] / 2; }

  Param b;
  MinCandidate candidate;
};

}  // namespace reel::nn
