#pragma once

#include <optional>

#include <reel/nn/cells/recurrent.h>

namespace reel::nn {

/// The state of an sLSTM: h, and the cell state c and its normaliser n, both divided by e^m; all
/// [B, H]. A sequence begins with n = 0.
struct SlstmState {
  Tensor h, c, n, m;

  /// See RecurrentState.
  template <class F>
  SlstmState map(F&& f) const {
    return {f(h), f(c), f(n), f(m)};
  }
  static std::vector<std::string> names() { return {"h", "c", "n", "m"}; }
};

/// The options of Slstm.
struct SlstmOptions {
  ForgetGate forget = ForgetGate::sigmoid;
  /// The forget gate's initial bias; nullopt leaves it as drawn.
  std::optional<double> forget_bias = 1;
  /// For the two matrices; by default uniform with bound 1/√hidden_size.
  Initializer weight_init = {};
  /// For the biases; by default drawn from the same distribution, as the sum of two draws.
  Initializer bias_init = {};
  /// Without zoneout_c: c means nothing without its m.
  CellDropout dropout = {};
};

/// One step of an LSTM with exponential gates (Beck et al., "xLSTM", 2024, arXiv 2405.04517; with
/// one head):
///   z = tanh(W_z x + U_z h + b_z)     o = σ(W_o x + U_o h + b_o)
///   ĩ, f̃ = W x + U h + b              ln f = ln σ(f̃), or f̃ with an exponential forget gate
///   m' = max(ln f + m, ĩ)             i = exp(ĩ - m')     f' = exp(ln f + m - m')
///   c' = f' ∘ c + i ∘ z               n' = f' ∘ n + i     h' = o ∘ c' / n'
/// m is a stabiliser, which no output depends on: without it the exponentials would overflow.
/// Parameters, in blocks of H rows for i, f, z, o: `w_ih` [4H, D], `w_hh` [4H, H], `b` [4H].
struct SlstmCell : FusedCellCalls<SlstmCell, SlstmState> {
  using Options = SlstmOptions;
  static constexpr const char *name = "SlstmCell", *layer_name = "Slstm";

  /// Throws ValueError for sizes that are not positive, and rates outside [0, 1).
  SlstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
            const Options& options = {});

  FusedCell fused() const { return slstm_cell(forget); }
  CellParams params() const { return {w_ih, w_hh, b}; }

  Param w_ih, w_hh, b;
  ForgetGate forget;
};

/// An sLSTM over a sequence.
using Slstm = Recurrent<SlstmCell>;

}  // namespace reel::nn
