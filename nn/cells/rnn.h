#pragma once

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

/// The options of Rnn.
struct RnnOptions {
  Activation activation = Activation::tanh;
  /// For the two matrices; by default uniform with bound 1/√hidden_size, as PyTorch draws them.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws where
  /// PyTorch has two biases.
  Initializer bias_init = {};
  /// Begins with w_hh the identity and b = 0, for relu: a layer that remembers by default (Le,
  /// Jaitly and Hinton, 2015).
  bool identity_start = false;
  /// h' = f(LN(W x) + LN(U h) + b), with gains (Ba et al., 2016).
  bool layer_norm = false;
  CellDropout dropout = {};
};

/// One step of a vanilla RNN: h' = f(W x + U h + b). Parameters `w_ih` [H, D], `w_hh` [H, H], `b`
/// [H]; with layer_norm `norm_ih` and `norm_hh` [H].
struct RnnCell : FusedCellCalls<RnnCell, HiddenState> {
  using Options = RnnOptions;
  static constexpr const char *name = "RnnCell", *layer_name = "Rnn";

  /// Throws ValueError for sizes that are not positive, rates outside [0, 1), and an identity start
  /// with another weight_init.
  RnnCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const Options& options = {});

  FusedCell fused() const { return rnn_cell(activation, numbers[1].defined()); }
  CellParams params() const { return {w_ih, w_hh, b, {}, {}, numbers}; }

  Param w_ih, w_hh, b;
  std::array<Param, 4> numbers;
  Activation activation;
};

/// A vanilla RNN over a sequence.
using Rnn = Recurrent<RnnCell>;

}  // namespace reel::nn
