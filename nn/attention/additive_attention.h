#pragma once

#include <reel/nn/attention/attention.h>
#include <reel/nn/dropout.h>
#include <reel/nn/linear.h>

namespace reel::nn {

/// The options of AdditiveAttention.
struct AdditiveAttentionOptions {
  double dropout = 0;  ///< of the weights, in training
};

/// score(q, x_t) = vᵀ tanh(W q + U x_t + b): context = Σ softmax(score)_t x_t (Bahdanau et al.,
/// "Neural machine translation by jointly learning to align and translate", 2015). Parameters
/// `query.w` [size, query_size], `key.w` [size, memory_size], `key.b` [size] and `score.w` [1,
/// size], with the initial values of Linear. Takes memory for Q·T·size numbers a row.
struct AdditiveAttention : AttentionCalls<AdditiveAttention> {
  /// Throws ValueError for sizes that are not positive, or unless 0 <= dropout < 1.
  AdditiveAttention(const ModuleParams& p, Arg<Index> query_size, Arg<Index> memory_size,
                    Arg<Index> size, const AdditiveAttentionOptions& options = {});

  /// x [T, B, memory_size], lengths i32 [B]. Throws as DotAttention::memory.
  AttentionMemory memory(const Tensor& x, const std::optional<Tensor>& lengths = {},
                         Site site = {}) const;
  /// query [B, query_size] or [Q, B, query_size]. Throws as DotAttention.
  AttentionResult operator()(const Tensor& query, const AttentionMemory& memory,
                             const Mode& mode = Eval{}, const AttentionOptions& options = {},
                             Site site = {}) const;
  using AttentionCalls::operator();

  Linear query, key, score;
  Dropout dropout;
};

}  // namespace reel::nn
