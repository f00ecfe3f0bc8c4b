#pragma once

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

struct GruOptions {
  /// Where the reset gate acts: after the product, as in PyTorch, or before it, as in the paper.
  Reset reset = Reset::after;
  /// For the two matrices; by default uniform with bound 1/√hidden_size, as PyTorch draws them.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws where
  /// PyTorch has two biases.
  Initializer bias_init = {};
};

/// One step of a gated recurrent unit; the equations are those of reel::gru. Parameters, in blocks
/// of H rows for the gates r, z, n: `w_ih` [3H, D], `w_hh` [3H, H], `b` [3H], and `b_hn` [H].
struct GruCell : FusedCellCalls<GruCell, HiddenState> {
  using Options = GruOptions;
  static constexpr const char *name = "GruCell", *layer_name = "Gru";

  /// Throws ValueError for sizes that are not positive.
  GruCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const Options& options = {});

  FusedCell fused() const { return gru_cell(reset); }
  CellParams params() const { return {w_ih, w_hh, b, b_hn}; }

  Param w_ih, w_hh, b, b_hn;
  Reset reset;
};

/// A gated recurrent unit over a sequence.
using Gru = Recurrent<GruCell>;

}  // namespace reel::nn
