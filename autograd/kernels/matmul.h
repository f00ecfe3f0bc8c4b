#pragma once

#include <reel/autograd/dtype.h>
#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/shape.h>

namespace reel::kernels {

// The products in this header guarantee that the bits of an element of C depend only on its row of
// A, its column of B and K. The sum over K is cut into blocks of fixed length; each block is one
// chain of fused multiply-adds in the order of k, starting from zero. Up to thirty-two blocks are
// added in order, and those sums are added in double. Tiles, tails, layouts and threads never
// change this. With factors rounded to bf16 the definition is another one: see Precision.

/// Sums run over blocks of this many k: a panel of B of that height fills half of a 32 KB
/// first-level cache at the widths of AVX2. It is part of the definition of the result, hence one
/// constant.
inline constexpr Index block_depth = 256;

/// Longer sums are cut into parts of this many k, which are added in double: a chain of f32 sums
/// loses a digit with every tenfold increase in terms. Also part of the definition.
inline constexpr Index longest_sum = 32 * block_depth;

/// As many multiplications are worth waking another thread.
inline constexpr Index product_worth_a_fork = 1 << 21;

/// A non-owning view of a matrix; one of the strides is 1.
template <Real T>
struct MatrixView {
  const T* data;
  Index rows, cols;
  Index row_stride, col_stride;

  static MatrixView row_major(const T* data, Index rows, Index cols) {
    return {data, rows, cols, cols, 1};
  }
  /// A row-major matrix whose rows are `row_stride` elements apart.
  static MatrixView row_major(const T* data, Index rows, Index cols, Index row_stride) {
    return {data, rows, cols, row_stride, 1};
  }
  MatrixView transposed() const { return {data, cols, rows, col_stride, row_stride}; }
  MatrixView row_range(Index begin, Index end) const {
    return {data + begin * row_stride, end - begin, cols, row_stride, col_stride};
  }
  MatrixView col_range(Index begin, Index end) const {
    return {data + begin * col_stride, rows, end - begin, row_stride, col_stride};
  }
};

template <Real T>
struct Products;

/// B (K x N) packed once into the order in which the product reads it, for use in many products,
/// all of the precision that is set while it is packed.
template <Real T>
class PackedMatrix {
 public:
  /// Uses threads() threads when the matrix is large.
  explicit PackedMatrix(MatrixView<T> b);
  /// For these products.
  PackedMatrix(MatrixView<T> b, const Products<T>& products);

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  const T* data() const { return data_.data(); }
  const Products<T>& products() const { return *products_; }

 private:
  const Products<T>* products_;
  Index rows_, cols_;
  Scratch<T> data_;
};

enum class Write { assign, add };

/// C (M x N, row-major, rows `ldc` apart) = or += A * B, on the calling thread only. `assign` does
/// not read C.
template <Real T>
void multiply(MatrixView<T> a, const PackedMatrix<T>& b, T* c, Index ldc, Write write);

/// C = start + A * B with the rows of `start` `start_stride` apart: 0 repeats one row, a bias.
template <Real T>
void multiply(MatrixView<T> a, const PackedMatrix<T>& b, const T* start, Index start_stride, T* c,
              Index ldc);

/// C = or += A * B, split over threads().
template <Real T>
void matmul(MatrixView<T> a, MatrixView<T> b, T* c, Index ldc, Write write);

/// C = start + A * B with the rows of `start` `start_stride` apart, split over threads().
template <Real T>
void matmul(MatrixView<T> a, MatrixView<T> b, const T* start, Index start_stride, T* c, Index ldc);

/// The same with a prepacked B.
template <Real T>
void matmul(MatrixView<T> a, const PackedMatrix<T>& b, T* c, Index ldc, Write write);
template <Real T>
void matmul(MatrixView<T> a, const PackedMatrix<T>& b, const T* start, Index start_stride, T* c,
            Index ldc);

}  // namespace reel::kernels
