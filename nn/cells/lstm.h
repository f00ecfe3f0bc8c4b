#pragma once

#include <optional>

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

/// The options of Lstm.
struct LstmOptions {
  /// One of the variants of Greff et al.; see reel::LstmVariant.
  LstmVariant variant = LstmVariant::standard;
  /// Connections of the gates with the cell state of their unit (Gers and Schmidhuber, 2000): p ∘ c
  /// is added to the pre-activations of i and f, p ∘ c' to those of o.
  bool peepholes = false;
  /// The forget gate's initial bias, where the variant has that gate. 1 makes a new network
  /// remember by default (Gers et al., 2000; Jozefowicz et al., 2015); nullopt leaves it as drawn.
  std::optional<double> forget_bias = 1;
  /// For the two matrices; by default uniform with bound 1/√hidden_size, as PyTorch draws them.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws where
  /// PyTorch has two biases.
  Initializer bias_init = {};
  /// h is a projection of the cell's output to this size, which is smaller than hidden_size (Sak et
  /// al., 2014; PyTorch's proj_size). 0: none.
  Index projection_size = 0;
  /// The cell state is kept between -cell_clip and cell_clip, before the output gate sees it (Sak
  /// et al., 2014).
  std::optional<double> cell_clip = {};
  /// LN(W x) + LN(U h) + b over the blocks of all gates, and h' = o ∘ tanh(LN(c')) (Ba et al.,
  /// 2016). Only for the standard variant without peepholes.
  bool layer_norm = false;
  CellDropout dropout = {};
};

/// One step of long short-term memory; the equations are those of reel::lstm. Parameters, in blocks
/// of H rows for the gates i, f, g, o: `w_ih` [4H, D], `w_hh` [4H, H], `b` [4H]; with peepholes
/// `peepholes` [3H] for i, f, o. A variant without one of the gates has no block for it. With a
/// projection to P numbers `w_hr` [P, H], and `w_hh` [4H, P]; with layer_norm `norm_ih` and
/// `norm_hh` [4H], and `norm_c` [2H], a gain and a bias.
struct LstmCell : FusedCellCalls<LstmCell, LstmState> {
  using Options = LstmOptions;
  static constexpr const char *name = "LstmCell", *layer_name = "Lstm";

  /// Throws ValueError for sizes that are not positive, a projection that is not smaller than the
  /// layer, rates outside [0, 1), and options that exclude each other.
  LstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
           const Options& options = {});

  /// The op of a step, by variant and options.
  FusedCell fused() const;
  CellParams params() const { return {w_ih, w_hh, b, {}, w_hr, numbers}; }

  Param w_ih, w_hh, b, w_hr;
  std::array<Param, 4> numbers;  ///< `peepholes`, `norm_ih`, `norm_hh`, `norm_c`
  LstmVariant variant;
};

/// Long short-term memory over a sequence.
using Lstm = Recurrent<LstmCell>;

}  // namespace reel::nn
