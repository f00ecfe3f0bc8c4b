#pragma once

#include <reel/nn/attention/attention.h>
#include <reel/nn/dropout.h>

namespace reel::nn {

/// The options of DotAttention.
struct DotAttentionOptions {
  bool scaled = false;  ///< divides the scores by √D (Vaswani et al., 2017)
  double dropout = 0;   ///< of the weights, in training
};

/// score(q, x_t) = q·x_t, of queries with the D features of the memory: context = Σ
/// softmax(score)_t x_t (Luong et al., "Effective approaches to attention-based neural machine
/// translation", 2015, "dot"). No parameters.
struct DotAttention : AttentionCalls<DotAttention> {
  /// Throws ValueError unless 0 <= dropout < 1.
  explicit DotAttention(const DotAttentionOptions& options = {}, Site site = {});

  /// x [T, B, D], lengths i32 [B]. Throws ShapeError for other shapes, ValueError for a length that
  /// is not in 1 .. T.
  AttentionMemory memory(const Tensor& x, const std::optional<Tensor>& lengths = {},
                         Site site = {}) const;
  AttentionMemory memory(const KeysAndValues& x, const std::optional<Tensor>& lengths = {},
                         Site site = {}) const;

  /// Throws ShapeError for a query or a mask that does not fit the memory, ValueError if the mask
  /// hides everything from a query.
  AttentionResult operator()(const Tensor& query, const AttentionMemory& memory,
                             const Mode& mode = Eval{}, const AttentionOptions& options = {},
                             Site site = {}) const;
  using AttentionCalls::operator();

  bool scaled;
  Dropout dropout;
};

}  // namespace reel::nn
