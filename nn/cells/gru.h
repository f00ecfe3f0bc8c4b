#pragma once

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

/// The options of Gru.
struct GruOptions {
  /// Where the reset gate acts: after the product, as in PyTorch, or before it, as in the paper.
  Reset reset = Reset::after;
  /// For the two matrices; by default uniform with bound 1/√hidden_size, as PyTorch draws them.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws where
  /// PyTorch has two biases.
  Initializer bias_init = {};
  /// LN(W x) + b and LN(U h) + b_hn in place of W x + b and U h + b_hn, each with gains, over the
  /// blocks of all gates (Ba et al., 2016). Not with Reset::before.
  bool layer_norm = false;
  CellDropout dropout = {};
};

/// One step of a gated recurrent unit; the equations are those of reel::gru. Parameters, in blocks
/// of H rows for the gates r, z, n: `w_ih` [3H, D], `w_hh` [3H, H], `b` [3H], and `b_hn` [H]; with
/// layer_norm `norm_ih` and `norm_hh` [3H].
struct GruCell : FusedCellCalls<GruCell, HiddenState> {
  using Options = GruOptions;
  static constexpr const char *name = "GruCell", *layer_name = "Gru";

  /// Throws ValueError for sizes that are not positive, rates outside [0, 1), and options that
  /// exclude each other.
  GruCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const Options& options = {});

  FusedCell fused() const { return gru_cell(reset, numbers[1].defined(), dropout.update > 0); }
  CellParams params() const { return {w_ih, w_hh, b, b_hn, {}, numbers}; }

  Param w_ih, w_hh, b, b_hn;
  std::array<Param, 4> numbers;
  Reset reset;
};

/// A gated recurrent unit over a sequence.
using Gru = Recurrent<GruCell>;

}  // namespace reel::nn
