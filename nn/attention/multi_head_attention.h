#pragma once

#include <reel/nn/attention/attention.h>
#include <reel/nn/dropout.h>
#include <reel/nn/linear.h>

namespace reel::nn {

/// Which weights multi-head attention returns: the mean over the heads, [Q, B, T] or [B, T]; those
/// of each head, [Q, B, heads, T] or [B, heads, T]; or none, an undefined tensor, which takes no
/// time.
enum class HeadWeights { mean, each, none };

/// The options of MultiHeadAttention.
struct MultiHeadAttentionOptions {
  bool bias = true;    ///< of all four projections
  double dropout = 0;  ///< of the weights, in training
  HeadWeights weights = HeadWeights::mean;
  std::optional<Index> key_size = {};    ///< features of the keys; by default `size`
  std::optional<Index> value_size = {};  ///< features of the values; by default those of the keys
};

/// Attention of several heads with projections of their own, each of size / heads features
/// (Vaswani et al., "Attention is all you need", 2017):
///
///     context = O concat over the heads of softmax(Q q · K x_t / √(size / heads))_t V x_t
///
/// with biases in all four projections: the parameters `query`, `key`, `value` and `output`, each a
/// Linear. A head has consecutive rows of the first three. Initial values have the distributions of
/// PyTorch's: Glorot's for Q, K and V, that of Linear for O, biases 0.
struct MultiHeadAttention : AttentionCalls<MultiHeadAttention> {
  /// Throws ValueError for sizes that are not positive, a size that is not a multiple of the heads,
  /// or unless 0 <= dropout < 1.
  MultiHeadAttention(const ModuleParams& p, Arg<Index> size, Arg<Index> heads,
                     const MultiHeadAttentionOptions& options = {});

  /// x [T, B, size], lengths i32 [B]. Throws as DotAttention::memory.
  AttentionMemory memory(const Tensor& x, const std::optional<Tensor>& lengths = {},
                         Site site = {}) const;
  AttentionMemory memory(const KeysAndValues& x, const std::optional<Tensor>& lengths = {},
                         Site site = {}) const;
  /// query [B, size] or [Q, B, size]. Throws as DotAttention.
  AttentionResult operator()(const Tensor& query, const AttentionMemory& memory,
                             const Mode& mode = Eval{}, const AttentionOptions& options = {},
                             Site site = {}) const;
  using AttentionCalls::operator();

  Index heads;
  Linear query, key, value, output;
  Dropout dropout;
  HeadWeights weights;

 private:
  MultiHeadAttention(const ModuleParams& p, Index size, Index heads, Index key_size,
                     Index value_size, const MultiHeadAttentionOptions& options);
};

}  // namespace reel::nn
