#pragma once

#include <optional>

#include <reel/autograd/recurrent.h>
#include <reel/nn/calls.h>
#include <reel/nn/mode.h>
#include <reel/nn/sizes.h>
#include <reel/nn/state.h>

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
struct LstmCell : CellCalls<LstmCell, LstmState> {
  using State = LstmState;
  using Options = LstmOptions;

  /// Throws ValueError for sizes that are not positive.
  LstmCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
           const Options& options = {});

  using CellCalls::operator();
  /// x [B, D], state h and c [B, H] -> y = h' [B, H] and the state. Throws ShapeError.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           Site site = {}) const;

  Index input_size() const { return w_ih.shape()[1]; }
  Index output_size() const { return w_hh.shape()[1]; }

  Param w_ih, w_hh, b;
};

/// Long short-term memory over a sequence: LstmCell at every step, as one op (reel::lstm).
/// The default mode is Eval.
struct Lstm : SequenceCalls<Lstm, LstmState> {
  using State = LstmState;
  using Options = LstmOptions;
  static constexpr bool one_op = true;

  /// Throws ValueError for sizes that are not positive.
  Lstm(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
       const Options& options = {});

  using SequenceCalls::operator();
  /// x [T, B, D] -> y [T, B, H] and the last state; state, mode and options may each be left out:
  /// see SequenceCalls. Throws ShapeError, or ValueError for lengths outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const;

  Index output_size() const { return cell.output_size(); }

  LstmCell cell;
};

}  // namespace reel::nn
