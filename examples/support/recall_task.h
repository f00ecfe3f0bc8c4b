#pragma once

#include <cstdint>

#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/nn/linear.h>

/// A task that needs memory and nothing else: to give back, after the last step, the number that
/// was marked.
namespace reel::examples {

/// Sequences of pairs (standard normal number, mark), of which one is marked: [T, B, 2].
inline Tensor draw_marked(Index length, Index rows, Rng& rng, DType dtype = f32) {
  Tensor at({rows}, i32);
  for (std::int32_t& t : at.edit<std::int32_t>())
    t = static_cast<std::int32_t>(rng.integer(length));
  const Tensor marks = expand(transpose(one_hot(at, length, dtype), 0, 1), 2);
  return concat({rng.normal({length, rows, 1}, 0, 1, dtype), marks}, 2);
}

/// A layer L and a Linear that reads its last output.
template <class L>
struct RecallNetwork {
  RecallNetwork(const Params& params, Index units, const typename L::Options& options)
      : rnn(params / "rnn", 2, units, options), head(params / "head", units, 1) {}

  /// The mean squared error, 1 without memory.
  Tensor loss(const Tensor& x) const {
    const Tensor marked = sum(slice(x, 2, 0, 1) * slice(x, 2, 1, 2), 0);
    return mse(head(select(rnn(x).y, 0, -1)), marked);
  }

  L rnn;
  nn::Linear head;
};

}  // namespace reel::examples
