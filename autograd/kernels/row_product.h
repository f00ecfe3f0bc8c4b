#pragma once

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/products.h>

// Products of a single row, as a model has them that runs step by step for one sequence.
namespace reel::kernels {

/// n rounded up to whole vectors of the process's level: rows of that width have no tail.
template <Real T>
Index whole_vectors(Index n);

/// In which order a product goes through its panels. Where it alternates from call to call, a call
/// begins with those that the cache still has.
enum class Order { forward, backward };

/// B (K x N), packed for x * B with a row x of K numbers. The bits are those of the products in
/// matmul.h; there is no memory to be allocated and no other thread.
template <Real T>
class RowProduct {
 public:
  /// The columns are `blocks` blocks of equal width. Each is followed by zeros up to `block_width`,
  /// and the last one up to whole vectors. Throws MemoryError.
  explicit RowProduct(MatrixView<T> b, Index blocks = 1, Index block_width = 0);

  Index depth() const { return depth_; }
  /// The columns with the zeros: what is written to y.
  Index width() const { return width_; }

  /// y = start + x * B. The start may be null, for nothing, or y.
  void operator()(const T* x, const T* start, T* y, Order order = Order::forward) const noexcept {
    const auto count = panels_.size();
    for (std::size_t i = 0; i < count; ++i)
      multiply(panels_[order == Order::forward ? i : count - 1 - i], x, start, y);
  }

 private:
  // Columns that one tile multiplies: element (k, j) is data[k * width + j].
  struct Panel {
    RowTile<T> tile;
    const T* data;
    Index col, width;
  };
  void pack(MatrixView<T> b, Index blocks, Index block_width);
  void multiply(const Panel& panel, const T* x, const T* start, T* y) const noexcept {
    y += panel.col;
    if (start) start += panel.col;
    if (depth_ > block_depth) return multiply_blocks(panel, x, start, y);
    panel.tile(depth_, x, panel.data, start, y);
  }
  void multiply_blocks(const Panel& panel, const T* x, const T* start, T* y) const noexcept;
  void multiply_part(const Panel& panel, Index begin, Index end, const T* x, const T* start,
                     T* y) const noexcept;
  void multiply_long(const Panel& panel, const T* x, const T* start, T* y) const noexcept;

  Index depth_, width_;
  PoolVector<Panel> panels_;
  Scratch<T> packed_;
};

}  // namespace reel::kernels
