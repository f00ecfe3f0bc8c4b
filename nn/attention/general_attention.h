#pragma once

#include <reel/nn/attention/dot_attention.h>
#include <reel/nn/linear.h>

namespace reel::nn {

/// The options of GeneralAttention.
struct GeneralAttentionOptions {
  double dropout = 0;  ///< of the weights, in training
};

/// score(q, x_t) = qᵀ W x_t: context = Σ softmax(score)_t x_t (Luong et al., "Effective approaches
/// to attention-based neural machine translation", 2015, "general"). Parameter `key.w`
/// [query_size, memory_size], with the initial values of Linear.
struct GeneralAttention : AttentionCalls<GeneralAttention> {
  /// Throws ValueError for sizes that are not positive, or unless 0 <= dropout < 1.
  GeneralAttention(const ModuleParams& p, Arg<Index> query_size, Arg<Index> memory_size,
                   const GeneralAttentionOptions& options = {});

  /// x [T, B, memory_size], lengths i32 [B]. Throws as DotAttention::memory.
  AttentionMemory memory(const Tensor& x, const std::optional<Tensor>& lengths = {},
                         Site site = {}) const;
  /// query [B, query_size] or [Q, B, query_size]. Throws as DotAttention.
  AttentionResult operator()(const Tensor& query, const AttentionMemory& memory,
                             const Mode& mode = Eval{}, const AttentionOptions& options = {},
                             Site site = {}) const;
  using AttentionCalls::operator();

  Linear key;
  DotAttention dot;
};

}  // namespace reel::nn
