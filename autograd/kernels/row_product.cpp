#include <reel/autograd/kernels/row_product.h>

#include <algorithm>

namespace reel::kernels {

template <Real T>
Index whole_vectors(Index n) {
  const Index lanes = products<T>().lanes;
  return ceil_div(n, lanes) * lanes;
}

template <Real T>
RowProduct<T>::RowProduct(MatrixView<T> b, Index blocks, Index block_width)
    : depth_(b.rows),
      width_(whole_vectors<T>(std::max(b.cols, blocks * block_width))),
      packed_(depth_ * width_) {
  const Products<T>& level = products<T>();
  for (Index col = 0, width = 0; col < width_; col += width) {
    width = std::min(width_ - col, row_tile_vectors * level.lanes);
    panels_.push_back(
        {level.row_tile(width / level.lanes), packed_.data() + col * depth_, col, width});
  }
  pack(b, blocks, std::max(block_width, b.cols / blocks));
}

template <Real T>
void RowProduct<T>::pack(MatrixView<T> b, Index blocks, Index block_width) {
  const Index size = b.cols / blocks;
  const auto element = [&](Index k, Index col) {
    const Index block = col / std::max<Index>(block_width, 1), j = col - block * block_width;
    if (block >= blocks || j >= size) return T(0);
    return b.data[k * b.row_stride + (block * size + j) * b.col_stride];
  };
  T* to = packed_.data();
  for (const Panel& panel : panels_)
    for (Index k = 0; k < depth_; ++k)
      for (Index j = 0; j < panel.width; ++j) *to++ = element(k, panel.col + j);
}

template <Real T>
void RowProduct<T>::multiply_blocks(const Panel& panel, const T* x, const T* start,
                                    T* y) const noexcept {
  if (depth_ > longest_sum) return multiply_long(panel, x, start, y);
  multiply_part(panel, 0, depth_, x, start, y);
}

// y = start + x * B over k from `begin` on, in blocks.
template <Real T>
void RowProduct<T>::multiply_part(const Panel& panel, Index begin, Index end, const T* x,
                                  const T* start, T* y) const noexcept {
  for (Index k = begin; k < end; k += block_depth, start = y)
    panel.tile(std::min(block_depth, end - k), x + k, panel.data + k * panel.width, start, y);
}

// The parts of a long sum are added in double.
template <Real T>
void RowProduct<T>::multiply_long(const Panel& panel, const T* x, const T* start,
                                  T* y) const noexcept {
  constexpr Index widest = row_tile_vectors * 64 / Index{sizeof(T)};
  double sum[widest];
  for (Index j = 0; j < panel.width; ++j) sum[j] = start ? static_cast<double>(start[j]) : 0;
  for (Index k = 0; k < depth_; k += longest_sum) {
    multiply_part(panel, k, std::min(k + longest_sum, depth_), x, nullptr, y);
    for (Index j = 0; j < panel.width; ++j) sum[j] += static_cast<double>(y[j]);
  }
  for (Index j = 0; j < panel.width; ++j) y[j] = static_cast<T>(sum[j]);
}

template class RowProduct<float>;
template class RowProduct<double>;
template Index whole_vectors<float>(Index n);
template Index whole_vectors<double>(Index n);

}  // namespace reel::kernels
