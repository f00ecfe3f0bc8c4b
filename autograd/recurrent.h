#pragma once

#include <optional>

#include <reel/autograd/tensor.h>

/// The recurrent layers as ops over a whole sequence. Each has fused forward and backward kernels,
/// and a specification in ops, step by step; derivatives above the first order use the
/// specification.
///
/// Shapes: x [T, B, D]; states [B, H]; w_ih [G·H, D], w_hh [G·H, H] and b [G·H] with G blocks of H
/// rows, one per gate; y [T, B, H]. Results are those of PyTorch's layers with b = b_ih + b_hh. All
/// throw ShapeError or DTypeError, naming the argument, before any work is done.
namespace reel {

/// How to run over the sequence.
struct SequenceOptions {
  /// From the last step to the first; y is still in the order of x.
  bool reverse = false;
  /// i32 [B], 0 <= length <= T: steps of a row from its length on are padding; they leave its state
  /// unchanged, and y is zero there. By default all rows have length T. The values of x in the
  /// padding have no effect, and may be NaN. The last state of a row of length 0 is its initial
  /// state.
  std::optional<Tensor> lengths = {};
  /// Runs the sequence in segments of this many steps, each under a checkpoint (see checkpoint.h):
  /// the tape keeps the states between segments, and the backward pass recomputes one segment at a
  /// time. With about √T steps it holds O(√T) activations, at the cost of one more forward pass. 0:
  /// all steps at once.
  Index segment = 0;
  /// Whether y is returned. If not, it is undefined, and exists for only one segment at a time;
  /// false without `segment` throws ValueError.
  bool outputs = true;
};

/// The outputs y [T, B, H], the states of all steps, and the last state h [B, H].
struct RnnResult {
  Tensor y, h;
};
using GruResult = RnnResult;
/// The same, with the last cell state c [B, H].
struct LstmResult {
  Tensor y, h, c;
};

/// The f of an Elman network.
enum class Activation { tanh, relu };

/// h' = f(W x + U h + b) (Elman, 1990).
RnnResult rnn(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& h0, Activation activation = Activation::tanh,
              const SequenceOptions& options = {}, Site site = {});

/// Where the reset gate acts: on the product U h, as in PyTorch and cuDNN, or on h before the
/// product, as in the paper.
enum class Reset { after, before };

/// The gated recurrent unit (Cho et al., 2014), gates in the order r, z, n:
///   r = σ(W_r x + U_r h + b_r)     z = σ(W_z x + U_z h + b_z)
///   n = tanh(W_n x + b_n + r ∘ (U_n h + b_hn))    with Reset::after
///   n = tanh(W_n x + b_n + U_n (r ∘ h) + b_hn)    with Reset::before
///   h' = (1 - z) ∘ n + z ∘ h
/// b_hn has shape [H].
GruResult gru(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
              const Tensor& b_hn, const Tensor& h0, Reset reset = Reset::after,
              const SequenceOptions& options = {}, Site site = {});

/// Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000), gates
/// in the order i, f, g, o:
///   i, f, o = σ(W x + U h + b)     g = tanh(W_g x + U_g h + b_g)
///   c' = f ∘ c + i ∘ g             h' = o ∘ tanh(c')
LstmResult lstm(const Tensor& x, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b,
                const Tensor& h0, const Tensor& c0, const SequenceOptions& options = {},
                Site site = {});

/// Variants of the LSTM that differ from it in one part (Greff et al., "LSTM: a search space
/// odyssey", 2015; there with peepholes, as is possible with each): f = 1 - i (CIFG), i = 1 (NIG),
/// f = 1 (NFG), o = 1 (NOG), g without its tanh (NIAF), h' = o ∘ c' (NOAF). A gate that is constant
/// has no parameters.
enum class LstmVariant {
  standard,
  coupled,
  no_input_gate,
  no_forget_gate,
  no_output_gate,
  no_input_activation,
  no_output_activation
};

/// The forget gate of an sLSTM (see nn::SlstmCell): σ, or like its input gate the exponential.
enum class ForgetGate { sigmoid, exponential };

/// The linear recurrence h_t = a_t ∘ h_(t-1) + b_t, elementwise, from h0 [B, H], or from 0 if that
/// is undefined, over a and b [T, B, H] -> y [T, B, H], all states, and the last state [B, H]. It
/// is what remains of a recurrent layer whose gates do not see the state (Martin and Cundy,
/// "Parallelizing linear recurrent neural nets over sequence length", 2018): all products are over
/// all steps at once. One pass over memory, and one in the backward pass, whose gradient is a scan
/// the other way; the tape holds a and y. a and b may be anything in the padding. In segments a and
/// b are copied: a layer that computes them saves more if it runs in segments itself.
RnnResult linear_scan(const Tensor& a, const Tensor& b, const Tensor& h0 = {},
                      const SequenceOptions& options = {}, Site site = {});

// For layers that run over a sequence in ops.
/// The lengths of the rows of x [T, B, ..], undefined if none are given. Throws DTypeError or
/// ShapeError unless they are i32 [B], ValueError for one outside 0 .. T; both name the op.
Tensor resolve_lengths(const SequenceOptions& options, const Tensor& x, const char* op,
                       Site site = {});
/// x [T, B, D] with zeros in the padding; x itself if there are no lengths.
Tensor with_zero_padding(const Tensor& x, const Tensor& lengths, Site site = {});
/// Each step of x [T, B, D] replaced by the one that a row runs through before it, and a row's
/// first one, which is its last in reverse, by its `initial` values [B, D], or by 0 if they
/// are undefined. The padding is unspecified.
Tensor previous_steps(const Tensor& x, const Tensor& initial, const Tensor& lengths, bool reverse,
                      Site site = {});
/// i32 [B, 1]: whether step t is within each row's length; undefined if it is within all of them.
Tensor active_rows(const Tensor& lengths, Index t);

/// One step in ops, from the gates' input projection p = W x + b [B, G·H]: the equations above.
Tensor rnn_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, Activation activation);
Tensor gru_step(const Tensor& p, const Tensor& h, const Tensor& w_hh, const Tensor& b_hn,
                Reset reset);
/// The state after a step.
struct LstmStep {
  Tensor h, c;
};
/// As rnn_step and gru_step.
LstmStep lstm_step(const Tensor& p, const Tensor& h, const Tensor& c, const Tensor& w_hh);

}  // namespace reel
