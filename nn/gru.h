#pragma once

#include <reel/nn/gru_cell.h>

namespace reel::nn {

/// A gated recurrent unit over a sequence: GruCell at every step, as one op (reel::gru).
struct Gru {
  using State = HiddenState;
  using Options = GruOptions;
  static constexpr bool one_op = true;

  Gru(const Params& p, Index input_size, Index hidden_size, const Options& options = {})
      : cell(p, input_size, hidden_size, options) {}

  /// x [T, B, D] -> y [T, B, H] and the last state. Throws ShapeError, or ValueError for lengths
  /// outside 0 .. T.
  Output<State> operator()(const Tensor& x, const State& state = {}, const Mode& mode = Eval{},
                           const SequenceOptions& options = {}, Site site = {}) const;

  Index output_size() const { return cell.output_size(); }

  GruCell cell;
};

}  // namespace reel::nn
