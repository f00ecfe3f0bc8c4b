#pragma once

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

/// The options of IndRnn.
struct IndRnnOptions {
  Activation activation = Activation::relu;
  /// For w_ih; by default uniform with bound 1/√hidden_size.
  Initializer weight_init = {};
  /// For u; by default uniform in [0, 1), as for a unit each of these is one time constant.
  Initializer recurrent_init = {};
  /// For the biases; by default zeros.
  Initializer bias_init = {};
  CellDropout dropout = {};
};

/// One step of an independently recurrent network, whose units see only their own state:
/// h' = f(W x + u ∘ h + b) (Li et al., 2018, arXiv 1803.04831). Units meet in the next layer of a
/// stack. Parameters `w_ih` [H, D], `u` [H], `b` [H].
struct IndRnnCell : FusedCellCalls<IndRnnCell, HiddenState> {
  using Options = IndRnnOptions;
  static constexpr const char *name = "IndRnnCell", *layer_name = "IndRnn";

  /// Throws ValueError for sizes that are not positive, and rates outside [0, 1).
  IndRnnCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
             const Options& options = {});

  FusedCell fused() const { return ind_rnn_cell(activation); }
  CellParams params() const { return {w_ih, {}, b, {}, {}, numbers}; }

  Param w_ih, b;
  std::array<Param, 4> numbers;  ///< `u`
  Activation activation;
};

/// An independently recurrent network over a sequence.
using IndRnn = Recurrent<IndRnnCell>;

}  // namespace reel::nn
