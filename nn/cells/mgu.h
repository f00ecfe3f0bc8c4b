#pragma once

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

/// The options of Mgu.
struct MguOptions {
  /// For the two matrices; by default uniform with bound 1/√hidden_size.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws.
  Initializer bias_init = {};
  CellDropout dropout = {};
};

/// One step of a minimal gated unit, a GRU with one gate (Zhou et al., 2016, arXiv 1603.09420):
///   f = σ(W_f x + U_f h + b_f)     n = tanh(W_n x + U_n (f ∘ h) + b_n)
///   h' = (1 - f) ∘ h + f ∘ n
/// Parameters, in blocks of H rows for f and n: `w_ih` [2H, D], `w_hh` [2H, H], `b` [2H].
struct MguCell : FusedCellCalls<MguCell, HiddenState> {
  using Options = MguOptions;
  static constexpr const char *name = "MguCell", *layer_name = "Mgu";

  /// Throws ValueError for sizes that are not positive, and rates outside [0, 1).
  MguCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const Options& options = {});

  FusedCell fused() const { return minimal_gated_cell(); }
  CellParams params() const { return {w_ih, w_hh, b}; }

  Param w_ih, w_hh, b;
};

/// A minimal gated unit over a sequence.
using Mgu = Recurrent<MguCell>;

}  // namespace reel::nn
