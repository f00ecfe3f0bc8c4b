#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/prefetch.h>
#include <reel/autograd/kernels/products.h>
#include <reel/autograd/kernels/thread_pool.h>

#include <algorithm>

namespace reel::kernels {
namespace {

// The products of the process's level.
template <Real T>
const Products<T>& products() {
  return with_level([](auto level) -> const Products<T>& { return products_at<level(), T>(); });
}

// Sums run over blocks of this many k: a panel of B of that height fills half of a 32 KB
// first-level cache at the widths of AVX2. It is part of the definition of the result, hence one
// constant.
constexpr Index block_depth = 256;

// Longer sums are cut into parts of this many k, which are added in double: a chain of f32 sums
// loses a digit with every tenfold increase in terms. Also part of the definition.
constexpr Index longest_sum = 32 * block_depth;

// A packed block of A with this many rows fits in the second-level cache with room to spare.
constexpr Index block_rows = 96;

// Prefetches part `part` of `parts` of the next panel of B, while the current one is used.
template <class T>
void prefetch_part(const T* panel, Index elements, Index part, Index parts) {
  const Index begin = part * elements / parts, end = (part + 1) * elements / parts;
  prefetch(panel + begin, end - begin);
}

template <class T>
Panels<T> at(const Panels<T>& b, Index k, Index panel) {
  return {b.data + k * b.row_stride + panel * b.panel_stride, b.row_stride, b.panel_stride};
}

// C = start + A * B for one block of k and rows.
template <class T>
void multiply_block(MatrixView<T> a, bool packed, Panels<T> b, Index cols, Start<T> start,
                    Output<T> c) {
  constexpr Index cached_bytes = 1 << 20;
  const Products<T>& level = products<T>();
  const Tiling tiling = level.tiling(a.rows);
  const Index panels = level.panels(cols), at_once = panels_at_once(a.rows);
  const bool prefetches = tiling.count >= 4 && b.row_stride == level.panel_cols &&
                          a.cols * cols * static_cast<Index>(sizeof(T)) > cached_bytes;
  for (Index p = 0; p < panels;) {
    const bool wide = at_once > 1 && p + at_once <= panels;
    const Index col = p * level.panel_cols;
    // Passed by reference: a copy for each tile would be read before it is fully written, which the
    // processor waits for.
    const Panels<T> panel = at(b, 0, p);
    for (Index t = 0; t < tiling.count; ++t) {
      const Index row = tiling.begin(t);
      const Strip<T> strip{a.data + row * (packed ? a.cols : a.row_stride), a.row_stride};
      if (prefetches && p + 1 < panels)
        prefetch_part(at(b, 0, p + 1).data, a.cols * level.panel_cols, t, tiling.count);
      level.tile(tiling.height(t), wide, packed)(a.cols, strip, panel, cols - col,
                                                 start.at(row, col), c.at(row, col));
    }
    p += wide ? at_once : 1;
  }
}

// Whether A is packed first: if its columns are contiguous, or if its rows are so long that those
// of a tile conflict in the cache and C is wide enough to make packing pay off.
template <class T>
bool worth_packing(MatrixView<T> a, Index cols) {
  constexpr Index long_row = 2048 / sizeof(T);
  return a.col_stride != 1 || (a.row_stride >= long_row && cols >= 32 * products<T>().panel_cols);
}

// C = start + A * B, where panels_of(k, depth) gives B's panels for a block of k.
template <class T, class F>
void multiply_part(MatrixView<T> a, Index cols, F panels_of, Start<T> start, Output<T> c) {
  const bool pack = worth_packing(a, cols);
  const Index height = std::min(a.rows, block_rows);
  const Index pack_size = height * std::min(a.cols, block_depth) + products<T>().pack_margin;
  const Scratch<T> packed(pack ? pack_size : 0);
  for (Index k = 0; k < a.cols; k += block_depth) {
    const Index depth = std::min(block_depth, a.cols - k);
    const Panels<T> b = panels_of(k, depth);
    for (Index row = 0; row < a.rows; row += height) {
      MatrixView<T> block = a.row_range(row, std::min(row + height, a.rows));
      block = block.col_range(k, k + depth);
      if (pack) {
        products<T>().pack_tiles(block, packed.data());
        block.data = packed.data();
      }
      const Start<T> so_far = k == 0 ? start : Start<T>{c.data, c.row_stride};
      multiply_block(block, pack, b, cols, so_far.at(row, 0), c.at(row, 0));
    }
  }
}

template <class T, class F>
void multiply_blocks(MatrixView<T> a, Index cols, F panels_of, Start<T> start, Output<T> c) {
  if (a.cols <= longest_sum) return multiply_part(a, cols, panels_of, start, c);
  const Index size = a.rows * cols;
  const Scratch<T> part(size);
  const Scratch<double> sum(size);
  for (Index i = 0; i < size; ++i)
    sum[i] = start.data ? static_cast<double>(*start.at(i / cols, i % cols).data) : 0;
  for (Index k = 0; k < a.cols; k += longest_sum) {
    multiply_part(
        a.col_range(k, std::min(k + longest_sum, a.cols)), cols,
        [&](Index inner, Index depth) { return panels_of(k + inner, depth); }, Start<T>{nullptr, 0},
        Output<T>{part.data(), cols});
    for (Index i = 0; i < size; ++i) sum[i] += static_cast<double>(part[i]);
  }
  for (Index i = 0; i < size; ++i) *c.at(i / cols, i % cols).data = static_cast<T>(sum[i]);
}

// The product for an A without columns.
template <class T>
void copy_start(Index rows, Index cols, Start<T> start, Output<T> c) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) *c.at(i, j).data = start.data ? *start.at(i, j).data : T(0);
}

template <class T>
void multiply_panels(MatrixView<T> a, Panels<T> b, Index cols, Start<T> start, Output<T> c) {
  if (a.rows == 0 || cols == 0) return;
  if (a.cols == 0) return copy_start(a.rows, cols, start, c);
  multiply_blocks(
      a, cols, [b](Index k, Index) { return at(b, k, 0); }, start, c);
}

template <class T>
void multiply_packing(MatrixView<T> a, MatrixView<T> b, Start<T> start, Output<T> c) {
  const Products<T>& level = products<T>();
  const Index panel_size = std::min(b.rows, block_depth) * level.panel_cols;
  const Scratch<T> packed(level.panels(b.cols) * panel_size);
  auto panels_of = [&](Index k, Index depth) {
    level.pack_panels(b.row_range(k, k + depth), packed.data(), panel_size);
    return Panels<T>{packed.data(), level.panel_cols, panel_size};
  };
  multiply_blocks(a, b.cols, panels_of, start, c);
}

template <class T>
void multiply_views(MatrixView<T> a, MatrixView<T> b, Start<T> start, Output<T> c) {
  // With at most two rows of A, full panels of B are read in place, unpacked.
  const bool in_place = a.rows <= 2 && b.col_stride == 1;
  const Index width = products<T>().panel_cols;
  const Index split = a.cols == 0 ? b.cols : in_place ? b.cols / width * width : 0;
  multiply_panels(a, Panels<T>{b.data, b.row_stride, width}, split, start, c);
  if (split < b.cols)
    multiply_packing(a, b.col_range(split, b.cols), start.at(0, split), c.at(0, split));
}

// C split into a grid whose cells are the tasks of a product, along its longer side as far as
// possible. Every grid gives the same bits.
struct Grid {
  Index row_cells = 1, col_cells = 1;

  Grid(Index rows, Index cols, Index depth) {
    constexpr Index smallest_side = 64;
    const int threads = usable_threads();
    if (threads == 1 || rows == 0 || cols == 0) return;
    const Index wanted = std::min(Index{4} * threads, rows * cols * depth / product_worth_a_fork);
    const auto cells = [](Index side, Index most) {
      return std::clamp<Index>(side / smallest_side, 1, std::max<Index>(most, 1));
    };
    Index &along = rows >= cols ? row_cells : col_cells,
          &across = rows >= cols ? col_cells : row_cells;
    along = cells(std::max(rows, cols), wanted);
    across = cells(std::min(rows, cols), wanted / along);
  }
};

// Calls f(row_begin, row_end, panel_begin, panel_end) for the cells of a grid over C.
template <class T, class F>
void for_cells(const Grid& grid, Index rows, Index cols, F f) {
  if (rows == 0 || cols == 0) return;
  const Index panels = products<T>().panels(cols);
  parallel_for(grid.row_cells * grid.col_cells, [&](Index cell) {
    const Index i = cell / grid.col_cells, j = cell % grid.col_cells;
    f(i * rows / grid.row_cells, (i + 1) * rows / grid.row_cells, j * panels / grid.col_cells,
      (j + 1) * panels / grid.col_cells);
  });
}

template <class T>
Panels<T> panels_of(const PackedMatrix<T>& b) {
  const Index width = products<T>().panel_cols;
  return {b.data(), width, b.rows() * width};
}

template <class T>
Start<T> start_of(T* c, Index ldc, Write write) {
  return {write == Write::add ? c : nullptr, ldc};
}

template <class T>
void multiply_cells(const Grid& grid, MatrixView<T> a, const PackedMatrix<T>& b, Start<T> start,
                    Output<T> c) {
  for_cells<T>(grid, a.rows, b.cols(), [&](Index row, Index row_end, Index panel, Index panel_end) {
    const Index width = products<T>().panel_cols, col = panel * width;
    const Index cols = std::min(panel_end * width, b.cols()) - col;
    multiply_panels(a.row_range(row, row_end), at(panels_of(b), 0, panel), cols, start.at(row, col),
                    c.at(row, col));
  });
}

}  // namespace

template <Real T>
PackedMatrix<T>::PackedMatrix(MatrixView<T> b)
    : rows_(b.rows),
      cols_(b.cols),
      data_(products<T>().panels(b.cols) * products<T>().panel_cols * b.rows) {
  if (rows_ == 0) return;                  // nothing to copy, and the address may be null
  constexpr Index worth_a_fork = 1 << 18;  // elements
  const Products<T>& level = products<T>();
  const Index cols_per_task = rows_ * cols_ < worth_a_fork ? cols_ : 16 * level.panel_cols;
  parallel_for(ceil_div(cols_, std::max<Index>(cols_per_task, 1)), [&](Index task) {
    const Index col = task * cols_per_task;
    level.pack_panels(b.col_range(col, std::min(col + cols_per_task, cols_)),
                      data_.data() + col * rows_, rows_ * level.panel_cols);
  });
}

template <Real T>
void multiply(MatrixView<T> a, const PackedMatrix<T>& b, T* c, Index ldc, Write write) {
  multiply_panels(a, panels_of(b), b.cols(), start_of(c, ldc, write), Output<T>{c, ldc});
}

template <Real T>
void multiply(MatrixView<T> a, const PackedMatrix<T>& b, const T* start, Index start_stride, T* c,
              Index ldc) {
  multiply_panels(a, panels_of(b), b.cols(), Start<T>{start, start_stride}, Output<T>{c, ldc});
}

template <Real T>
void matmul(MatrixView<T> a, MatrixView<T> b, T* c, Index ldc, Write write) {
  const Start<T> start = start_of(c, ldc, write);
  matmul(a, b, start.data, start.row_stride, c, ldc);
}

template <Real T>
void matmul(MatrixView<T> a, MatrixView<T> b, const T* start, Index start_stride, T* c, Index ldc) {
  const Grid grid(a.rows, b.cols, a.cols);
  const Start<T> from{start, start_stride};
  const Output<T> to{c, ldc};
  // Cells in the same column would each pack the same part of B.
  if (grid.row_cells > 1) return multiply_cells(grid, a, PackedMatrix<T>(b), from, to);
  for_cells<T>(grid, a.rows, b.cols, [&](Index, Index, Index panel, Index panel_end) {
    const Index width = products<T>().panel_cols, col = panel * width;
    const Index col_end = std::min(panel_end * width, b.cols);
    multiply_views(a, b.col_range(col, col_end), from.at(0, col), to.at(0, col));
  });
}

template <Real T>
void matmul(MatrixView<T> a, const PackedMatrix<T>& b, T* c, Index ldc, Write write) {
  const Start<T> start = start_of(c, ldc, write);
  matmul(a, b, start.data, start.row_stride, c, ldc);
}

template <Real T>
void matmul(MatrixView<T> a, const PackedMatrix<T>& b, const T* start, Index start_stride, T* c,
            Index ldc) {
  const Grid grid(a.rows, b.cols(), a.cols);
  multiply_cells(grid, a, b, Start<T>{start, start_stride}, Output<T>{c, ldc});
}

template class PackedMatrix<float>;
template class PackedMatrix<double>;
template void multiply(MatrixView<float>, const PackedMatrix<float>&, float*, Index, Write);
template void multiply(MatrixView<double>, const PackedMatrix<double>&, double*, Index, Write);
template void multiply(MatrixView<float>, const PackedMatrix<float>&, const float*, Index, float*,
                       Index);
template void multiply(MatrixView<double>, const PackedMatrix<double>&, const double*, Index,
                       double*, Index);
template void matmul(MatrixView<float>, MatrixView<float>, float*, Index, Write);
template void matmul(MatrixView<double>, MatrixView<double>, double*, Index, Write);
template void matmul(MatrixView<float>, MatrixView<float>, const float*, Index, float*, Index);
template void matmul(MatrixView<double>, MatrixView<double>, const double*, Index, double*, Index);
template void matmul(MatrixView<float>, const PackedMatrix<float>&, float*, Index, Write);
template void matmul(MatrixView<double>, const PackedMatrix<double>&, double*, Index, Write);
template void matmul(MatrixView<float>, const PackedMatrix<float>&, const float*, Index, float*,
                     Index);
template void matmul(MatrixView<double>, const PackedMatrix<double>&, const double*, Index, double*,
                     Index);

}  // namespace reel::kernels
