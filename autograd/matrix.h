#pragma once

#include <Eigen/Core>

#include <reel/autograd/tensor.h>

// Apart from tensor.h because Eigen's headers take longer to compile than all of Reel's.
namespace reel {

/// The tensor for Eigen, as a matrix over the same memory: all axes but the last are rows, so that
/// [T, B, F] is (T·B) x F, and a scalar is 1 x 1. Valid while the tensor lives. Throws DTypeError
/// when T is not the element type.
template <Element T>
auto matrix(const Tensor& x) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Index columns = x.rank() == 0 ? 1 : x.size(-1);
  Index rows = 1;
  for (int axis = 0; axis + 1 < x.rank(); ++axis) rows *= x.shape()[axis];
  return Eigen::Map<const Matrix>(x.values<T>().data(), rows, columns);
}

}  // namespace reel
