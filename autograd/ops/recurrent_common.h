#pragma once

#include <functional>
#include <string>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>

// Shared by the definitions of rnn, gru and lstm: shape rules and the loop of a specification.
namespace reel::detail {
using namespace op;

/// Checks x [T, B, D], w_ih [G·H, D], w_hh [G·H, H], b [G·H] (arguments 0 to 3), the states [B, H]
/// from argument `first_state` on, and the lengths [B], the last argument. Returns T, B, H as [T,
/// B, H].
Shape check_sequence(const Arguments& in, Index gates, int first_state, int states);
/// x [T, B, D], with zeros in the padding if not all values there are finite.
Tensor with_finite_padding(const Tensor& x, const Tensor& lengths, Site site);
/// Whether a layer with these outputs [T, B, H] has enough work for one thread, and too few rows
/// for a second one.
bool keeps_one_thread_busy(const Shape& y);
/// Runs `step(p, states)`, which updates the states in place, over the gates' input projection p
/// [T, B, M] = W x + b, and masks rows beyond their lengths. Returns y, stacked from the first
/// state, followed by the states.
template <class Step>
Tensors unroll_specification(std::span<const Tensor> in, const Tensors& initial, bool reverse,
                             Step step) {
  const Tensor& lengths = in.back();
  const Tensor p = affine(with_zero_padding(in[0], lengths), in[1], in[3]);
  const Index steps = p.shape()[0];
  // Padding steps must not read padding values: 0 times NaN is NaN.
  const Tensor begun = active_rows(lengths, 0), zero = scalar(0, p.dtype());
  Tensors states = initial;
  if (begun.defined())
    for (Tensor& state : states) state = where(begun, state, zero);
  Tensors y(static_cast<std::size_t>(steps));
  for (Index s = 0; s < steps; ++s) {
    const Index t = reverse ? steps - 1 - s : s;
    const StepScope step_scope(t);
    Tensors next = states;
    step(select(p, 0, t), next);
    const Tensor active = active_rows(lengths, t);
    Tensor& out = y[static_cast<std::size_t>(t)];
    out = next[0];
    if (active.defined()) {
      out = where(active, next[0], zero);
      for (std::size_t i = 0; i < states.size(); ++i) next[i] = where(active, next[i], states[i]);
    }
    states = std::move(next);
  }
  if (begun.defined())
    for (std::size_t i = 0; i < states.size(); ++i) states[i] = where(begun, states[i], initial[i]);
  Tensors results{stack(y)};
  results.insert(results.end(), states.begin(), states.end());
  return results;
}

/// A layer's op: from x, its weights and its states to y and the states after the last step.
using SequenceOp = std::function<Tensors(std::span<const Tensor>, const SequenceOptions&)>;
/// Runs it in segments, each under a checkpoint, passing the states on. Returns y, undefined if the
/// options do not request it, and the last states.
Tensors run_in_segments(const char* name, const SequenceOp& op, const Tensor& x,
                        std::initializer_list<Tensor> weights, Tensors states,
                        const SequenceOptions& options, Site site);

}  // namespace reel::detail
