#pragma once

#include <optional>

#include <reel/autograd/ops.h>
#include <reel/nn/embedding.h>

namespace reel::char_lm {

/// The vectors by which a model reads symbols: those of an embedding, or one-hot ones, whose
/// product with a matrix is a column of it.
class InputVectors {
 public:
  /// Of one of `count` symbols, with `size` elements of an embedding; of a size of 0, one-hot.
  InputVectors(const Params& p, Index count, Index size)
      : size_(size == 0 ? count : size), dtype_(p.dtype()) {
    if (size > 0) table_.emplace(p, count, size);
  }

  /// i32 [...] -> [..., size]. Throws ValueError for a symbol outside 0 .. count-1.
  Tensor operator()(const Tensor& symbols) const {
    return table_ ? (*table_)(symbols) : one_hot(symbols, size_, dtype_);
  }
  Index size() const { return size_; }
  /// Null for one-hot vectors.
  const nn::Embedding* table() const { return table_ ? &*table_ : nullptr; }

 private:
  std::optional<nn::Embedding> table_;
  Index size_;
  DType dtype_;
};

}  // namespace reel::char_lm
