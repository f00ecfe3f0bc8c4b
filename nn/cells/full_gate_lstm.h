#pragma once

#include <optional>

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

/// The state of an LSTM whose gates see those of the step before: h, c, and the gates; all [B, H].
struct FullGateLstmState {
  Tensor h, c, i, f, o;

  /// See RecurrentState.
  template <class F>
  FullGateLstmState map(F&& call) const {
    return {call(h), call(c), call(i), call(f), call(o)};
  }
  static std::vector<std::string> names() { return {"h", "c", "i", "f", "o"}; }
};

/// The options of FullGateLstm.
struct FullGateLstmOptions {
  /// The forget gate's initial bias; nullopt leaves it as drawn.
  std::optional<double> forget_bias = 1;
  /// For the matrices and the peepholes; by default uniform with bound 1/√hidden_size.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws.
  Initializer bias_init = {};
  /// `hidden` is of h, not of the gates; without zoneout_c.
  CellDropout dropout = {};
};

/// One step of an LSTM with full gate recurrence, as the first one was (Hochreiter and Schmidhuber,
/// 1997; "FGR" of Greff et al., "LSTM: a search space odyssey", 2015, arXiv 1503.04069):
///   i' = σ(W_i x + U_i h + R_ii i + R_if f + R_io o + p_i ∘ c  + b_i)     f' likewise
///   o' = σ(W_o x + U_o h + R_oi i + R_of f + R_oo o + p_o ∘ c' + b_o)
///   g  = tanh(W_g x + U_g h + b_g)     c' = f' ∘ c + i' ∘ g     h' = o' ∘ tanh(c')
/// Parameters, in blocks of H rows for i, f, o, g: `w_ih` [4H, D], `b` [4H]; `w_hh` [13H, H]: U,
/// then the rows of R for i, f, o that see i, those that see f, and those that see o; `peepholes`
/// [3H].
struct FullGateLstmCell : FusedCellCalls<FullGateLstmCell, FullGateLstmState> {
  using Options = FullGateLstmOptions;
  static constexpr const char *name = "FullGateLstmCell", *layer_name = "FullGateLstm";

  /// Throws ValueError for sizes that are not positive, and rates outside [0, 1).
  FullGateLstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
                   const Options& options = {});

  FusedCell fused() const { return full_gate_lstm_cell(); }
  CellParams params() const { return {w_ih, w_hh, b, {}, {}, numbers}; }

  Param w_ih, w_hh, b;
  std::array<Param, 4> numbers;  ///< `peepholes`
};

/// An LSTM with full gate recurrence over a sequence.
using FullGateLstm = Recurrent<FullGateLstmCell>;

}  // namespace reel::nn
