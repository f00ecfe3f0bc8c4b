#pragma once

#include <reel/autograd/recurrent.h>
#include <reel/nn/calls.h>
#include <reel/nn/mode.h>
#include <reel/nn/sizes.h>
#include <reel/nn/state.h>

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
struct GruCell : CellCalls<GruCell, HiddenState> {
  using State = HiddenState;
  using Options = GruOptions;

  /// Throws ValueError for sizes that are not positive.
  GruCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
          const Options& options = {});

  using CellCalls::operator();
  /// x [B, D], state [B, H] -> y = h' [B, H] and the state. Throws ShapeError.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           Site site = {}) const;

  Index input_size() const { return w_ih.shape()[1]; }
  Index output_size() const { return w_hh.shape()[1]; }

  Param w_ih, w_hh, b, b_hn;
  Reset reset;
};

/// A gated recurrent unit over a sequence: GruCell at every step, as one op (reel::gru).
/// The default mode is Eval.
struct Gru : SequenceCalls<Gru, HiddenState> {
  using State = HiddenState;
  using Options = GruOptions;
  static constexpr bool one_op = true;

  /// Throws ValueError for sizes that are not positive.
  Gru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
      const Options& options = {});

  using SequenceCalls::operator();
  /// x [T, B, D] -> y [T, B, H] and the last state; state, mode and options may each be left out:
  /// see SequenceCalls. Throws ShapeError, or ValueError for lengths outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const;

  Index output_size() const { return cell.output_size(); }

  GruCell cell;
};

}  // namespace reel::nn
