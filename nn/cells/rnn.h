#pragma once

#include <reel/autograd/params.h>
#include <reel/autograd/recurrent.h>
#include <reel/nn/mode.h>
#include <reel/nn/state.h>

namespace reel::nn {

struct RnnOptions {
  Activation activation = Activation::tanh;
  /// Of the two matrices; by default uniform with bound 1/√hidden_size, as PyTorch draws them.
  Initializer weight_init = {};
  /// Of the biases; by default drawn likewise, the sum of two where PyTorch has two.
  Initializer bias_init = {};
};

/// One step of a vanilla RNN: h' = f(W x + U h + b). Parameters `w_ih` [H, D], `w_hh` [H, H], `b`
/// [H].
struct RnnCell {
  using State = HiddenState;
  using Options = RnnOptions;

  /// Throws ValueError for sizes that are not positive.
  RnnCell(const Params& p, Index input_size, Index hidden_size, const Options& options = {});

  /// x [B, D], state [B, H] -> y = h' [B, H] and the state. Throws ShapeError.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           Site site = {}) const;

  Index input_size() const { return w_ih.shape()[1]; }
  Index output_size() const { return w_hh.shape()[1]; }

  Param w_ih, w_hh, b;
  Activation activation;
};

/// A vanilla RNN over a sequence: RnnCell at every step, as one op (reel::rnn).
struct Rnn {
  using State = HiddenState;
  using Options = RnnOptions;
  static constexpr bool one_op = true;

  Rnn(const Params& p, Index input_size, Index hidden_size, const Options& options = {})
      : cell(p, input_size, hidden_size, options) {}

  /// x [T, B, D] -> y [T, B, H] and the last state. Throws ShapeError, or ValueError for lengths
  /// outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const;

  Index output_size() const { return cell.output_size(); }

  RnnCell cell;
};

}  // namespace reel::nn
