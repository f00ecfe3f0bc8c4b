#pragma once

// GCC 12 warns about variables of its own AVX-512 header that are undefined on purpose (bug
// 105593): without these pragmas, in every program that is compiled for such a processor.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <reel/autograd/tensor.h>

// Separate from tensor.h because Eigen's headers take longer to compile than all of Reel's.
namespace reel {

/// An Eigen view of the tensor as a matrix: all axes but the last become rows, so that [T, B, F] is
/// (T·B) x F, and a scalar is 1 x 1. Valid during the tensor's lifetime. Throws DTypeError if T is
/// not the element type.
template <Element T>
auto matrix(const Tensor& x) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Index columns = x.rank() == 0 ? 1 : x.size(-1);
  Index rows = 1;
  for (int axis = 0; axis + 1 < x.rank(); ++axis) rows *= x.shape()[axis];
  return Eigen::Map<const Matrix>(x.values<T>().data(), rows, columns);
}

}  // namespace reel
