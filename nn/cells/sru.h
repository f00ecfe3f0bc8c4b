#pragma once

#include <reel/nn/cells/scan_layer.h>

namespace reel::nn {

/// The options of Sru.
struct SruOptions {
  /// By default uniform with bound √(3/input_size), variance 1/input_size, as in the paper.
  Initializer weight_init = {};
  /// By default zero, as in the paper.
  Initializer bias_init = {};
};

/// The state of layers whose outputs are not what they carry on: the cell state c [B, H].
struct CellState {
  Tensor c;

  /// See RecurrentState.
  template <class F>
  CellState map(F&& f) const {
    return {f(c)};
  }
  static std::vector<std::string> names() { return {"c"}; }
};

/// The simple recurrent unit (Lei et al., "Simple recurrent units for highly parallelizable
/// recurrence", 2018) over a sequence, its equations (1) to (4) without v, so that no gate sees the
/// state:
///   f  = σ(W_f x + b_f)              r = σ(W_r x + b_r)
///   c' = f ∘ c + (1 - f) ∘ (W_c x)   y = r ∘ c' + (1 - r) ∘ u
/// The second term of y is a highway: u = x, or u = W_u x where input_size differs from
/// hidden_size. Parameters, in blocks of H rows for c, f, r and where there is one u: `w_ih` [3H,
/// D] or [4H, D]; `b` [2H] for f, r.
struct Sru : ScanLayer<Sru, CellState> {
  using Options = SruOptions;
  static constexpr const char* name = "Sru";

  /// Throws ValueError for sizes that are not positive.
  Sru(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
      const Options& options = {});

  /// What a call computes, given x with zeros in the padding.
  Output<State> run(const Tensor& x, const State& state, const SequenceOptions& options) const;

  Index input_size() const { return w_ih.shape()[1]; }
  Index output_size() const { return b.shape()[0] / 2; }

  Param b;
};

}  // namespace reel::nn
