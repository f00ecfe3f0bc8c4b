#pragma once

#include <reel/nn/lstm_cell.h>

namespace reel::nn {

/// Long short-term memory over a sequence: LstmCell at every step, as one op (reel::lstm).
struct Lstm {
  using State = LstmState;
  using Options = LstmOptions;
  static constexpr bool one_op = true;

  Lstm(const Params& p, Index input_size, Index hidden_size, const Options& options = {})
      : cell(p, input_size, hidden_size, options) {}

  /// x [T, B, D] -> y [T, B, H] and the last state. Throws ShapeError, or ValueError for lengths
  /// outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const;

  Index output_size() const { return cell.output_size(); }

  LstmCell cell;
};

}  // namespace reel::nn
