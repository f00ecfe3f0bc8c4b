#pragma once

#include <reel/nn/cells/scan_layer.h>

namespace reel::nn {

/// How a QRNN pools over time, by the gates that it has: forget, output, input.
enum class Pooling { f, fo, ifo };

/// The options of Qrnn.
struct QrnnOptions {
  /// The width of the convolution: 1, each step by itself, or 2, with the step before it.
  int window = 2;
  Pooling pooling = Pooling::fo;
  /// By default both are uniform with bound 1/√(window · input_size).
  Initializer weight_init = {}, bias_init = {};
};

/// The state of a QRNN: its cell state c [B, H] and the last step of its input, x [B, D].
struct QrnnState {
  Tensor c, x;

  /// See RecurrentState.
  template <class F>
  QrnnState map(F&& f) const {
    return {f(c), f(x)};
  }
  static std::vector<std::string> names() { return {"c", "x"}; }
};

/// The quasi-recurrent network (Bradbury et al., "Quasi-recurrent neural networks", 2017) over a
/// sequence: a convolution over time, then a pooling without weights. With X = x, or with a window
/// of 2 the step before it followed by x:
///   z = tanh(W_z X + b_z)     f, o, i = σ(W X + b)
///   Pooling::f    c' = f ∘ c + (1 - f) ∘ z      y = c'
///   Pooling::fo   c' = f ∘ c + (1 - f) ∘ z      y = o ∘ c'
///   Pooling::ifo  c' = f ∘ c + i ∘ z            y = o ∘ c'
/// The step before the first is the state's x, or zeros. In reverse the step before is the one
/// after it in the order of x. Parameters, in blocks of H rows for z, f, o, i, as many of them as
/// there are, G: `w_ih` [G·H, window·D], `b` [G·H].
struct Qrnn : ScanLayer<Qrnn, QrnnState> {
  using Options = QrnnOptions;
  static constexpr const char* name = "Qrnn";

  /// Throws ValueError for sizes that are not positive and for another window.
  Qrnn(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
       const Options& options = {});

  /// What a call computes, given x with zeros in the padding.
  Output<State> run(const Tensor& x, const State& state, const SequenceOptions& options) const;

  Index input_size() const { return w_ih.shape()[1] / window; }
  Index output_size() const { return b.shape()[0] / gates(); }
  /// Blocks of rows: 2, 3 or 4.
  Index gates() const { return 2 + static_cast<Index>(pooling); }

  Param b;
  Index window;
  Pooling pooling;
};

}  // namespace reel::nn
