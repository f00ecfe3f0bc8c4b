#pragma once

#include <reel/nn/rnn_cell.h>

namespace reel::nn {

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
