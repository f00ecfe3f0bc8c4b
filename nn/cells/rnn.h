#pragma once

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

struct RnnOptions {
  Activation activation = Activation::tanh;
  /// For the two matrices; by default uniform with bound 1/√hidden_size, as PyTorch draws them.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws where
  /// PyTorch has two biases.
  Initializer bias_init = {};
};

/// One step of a vanilla RNN: h' = f(W x + U h + b). Parameters `w_ih` [H, D], `w_hh` [H, H], `b`
/// [H].
struct RnnCell : FusedCellCalls<RnnCell, HiddenState> {
  using Options = RnnOptions;
  static constexpr const char *name = "RnnCell", *layer_name = "Rnn";

  /// Throws ValueError for sizes that are not positive.
  RnnCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const Options& options = {});

  FusedCell fused() const { return rnn_cell(activation); }
  CellParams params() const { return {w_ih, w_hh, b}; }

  Param w_ih, w_hh, b;
  Activation activation;
};

/// A vanilla RNN over a sequence.
using Rnn = Recurrent<RnnCell>;

}  // namespace reel::nn
