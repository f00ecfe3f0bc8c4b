#pragma once

#include <optional>

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

struct LstmOptions {
  /// The forget gate's initial bias. 1 makes a new network remember by default (Gers et al., 2000;
  /// Jozefowicz et al., 2015); nullopt leaves it as drawn.
  std::optional<double> forget_bias = 1;
  /// For the two matrices; by default uniform with bound 1/√hidden_size, as PyTorch draws them.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws where
  /// PyTorch has two biases.
  Initializer bias_init = {};
};

/// One step of long short-term memory; the equations are those of reel::lstm. Parameters, in blocks
/// of H rows for the gates i, f, g, o: `w_ih` [4H, D], `w_hh` [4H, H], `b` [4H].
struct LstmCell : FusedCellCalls<LstmCell, LstmState> {
  using Options = LstmOptions;
  static constexpr const char *name = "LstmCell", *layer_name = "Lstm";

  /// Throws ValueError for sizes that are not positive.
  LstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
           const Options& options = {});

  FusedCell fused() const { return lstm_cell(); }
  CellParams params() const { return {w_ih, w_hh, b}; }

  Param w_ih, w_hh, b;
};

/// Long short-term memory over a sequence.
using Lstm = Recurrent<LstmCell>;

}  // namespace reel::nn
