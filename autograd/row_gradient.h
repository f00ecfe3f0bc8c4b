#pragma once

#include <reel/autograd/tensor.h>

namespace reel {

/// The gradient of some rows of a matrix [R, C], such as the vectors of an Embedding that a batch
/// looked up; that of the other rows is 0.
struct RowGradient {
  Tensor rows = {};    ///< i32 [n], ascending
  Tensor values = {};  ///< [n, C]

  bool defined() const { return rows.defined(); }
  /// The gradient [R, C] of the whole matrix.
  Tensor whole(const Shape& matrix) const;
};

/// The sum, for the rows that either has, with the bits of the sum of whole gradients.
RowGradient operator+(const RowGradient& a, const RowGradient& b);

}  // namespace reel
