#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/products.h>
#include <reel/autograd/kernels/thread_pool.h>

#include <algorithm>

namespace reel::kernels {
namespace {

// A packed block of A with this many rows fits in the second-level cache with room to spare.
constexpr Index block_rows = 96;

// A B of several panels, from one k on.
template <class T>
struct Factor {
  const Products<T>& products;
  const T* data;
  Index row_stride;  // 0 if it is packed: the rows of a panel are then as long as the panel is wide
  Index panel_stride;
  Index cols;
  Index k = 0;

  Factor from_row(Index row) const {
    return {products, data, row_stride, panel_stride, cols, k + row};
  }
  Factor from_panel(Index panel) const {
    const Index before = panel * products.panel_cols;
    return {products, data + panel * panel_stride, row_stride, panel_stride, cols - before, k};
  }
  Factor first_cols(Index count) const {
    return {products, data, row_stride, panel_stride, count, k};
  }
  Panels<T> panels() const {
    if (row_stride > 0) return {data + k * row_stride, row_stride, panel_stride};
    const Index width = products.width(cols);
    return {data + products.packed_depth(k) * width, width, panel_stride};
  }
};

// Cuts the panel that is read after p into parts, for the tiles of p to ask for.
template <class T>
Ahead<T> ahead_of(const Factor<T>& b, Index p, Index depth, Index tile, Index tiles) {
  const bool is_last = p + 1 == b.products.panels(b.cols);
  const Panels<T> next = is_last ? b.from_row(depth).panels() : b.from_panel(p + 1).panels();
  const Index elements = depth * next.row_stride,
              lines = ceil_div(elements, tiles * Ahead<T>::line);
  return {next.data + tile * lines * Ahead<T>::line, std::min(lines, depth)};
}

// C = start + A * B for one block of k and rows.
template <class T>
void multiply_block(MatrixView<T> a, bool packed, const Factor<T>& b, Start<T> start, Output<T> c) {
  constexpr Index cached_bytes = 1 << 20;
  const Products<T>& products = b.products;
  const Tiling tiling = products.tiling(a.rows);
  const Index packed_row = products.packed_depth(a.cols);
  const bool prefetches = tiling.count >= 4 && b.row_stride == 0 &&
                          a.cols * b.cols * static_cast<Index>(sizeof(T)) > cached_bytes;
  const Index whole = b.cols / products.panel_cols;
  const Index at_once = tiling.count == 1 ? products.panels_at_once(a.rows) : 1;
  for (Index p = 0, count; p < products.panels(b.cols); p += count) {
    count = p + at_once <= whole ? at_once : 1;
    const Index col = p * products.panel_cols, cols = b.cols - col;
    const Index vectors = count * products.width(cols) / products.lanes;
    // Passed by reference: a copy for each tile would be read before it is fully written, which the
    // processor waits for.
    const Panels<T> panels = b.from_panel(p).panels();
    for (Index t = 0; t < tiling.count; ++t) {
      const Index row = tiling.begin(t), rows = tiling.height(t);
      const Strip<T> strip{a.data + row * (packed ? packed_row : a.row_stride), a.row_stride, rows};
      const Ahead<T> ahead = prefetches ? ahead_of(b, p, a.cols, t, tiling.count) : Ahead<T>{};
      products.tile(rows, vectors, packed)(a.cols, strip, panels, cols, start.at(row, col),
                                           c.at(row, col), ahead);
    }
  }
}

// Whether A is packed first: to be rounded, if its columns are contiguous, or if its rows are so
// long that those of a tile conflict in the cache and those of C so long that packing pays off.
template <class T>
bool worth_packing(const Products<T>& products, MatrixView<T> a, Index cols) {
  constexpr Index long_row = 2048 / sizeof(T);
  return products.packed_depth.rounds() || a.col_stride != 1 ||
         (a.row_stride >= long_row && cols >= long_row);
}

// C = start + A * B, where factor(k, depth) gives B for a block of k.
template <class T, class F>
void multiply_part(const Products<T>& products, MatrixView<T> a, Index cols, F factor,
                   Start<T> start, Output<T> c) {
  const FlushSubnormals flushing;  // part of the definition with bf16
  const bool pack = worth_packing(products, a, cols);
  const Index height = std::min(a.rows, block_rows);
  const Index most = products.packed_depth(std::min(a.cols, products.block_depth));
  const Scratch<T> packed(pack ? height * most + products.pack_margin : 0);
  for (Index k = 0; k < a.cols; k += products.block_depth) {
    const Index depth = std::min(products.block_depth, a.cols - k);
    const Factor<T> b = factor(k, depth);
    for (Index row = 0; row < a.rows; row += height) {
      MatrixView<T> block = a.row_range(row, std::min(row + height, a.rows));
      block = block.col_range(k, k + depth);
      if (pack) {
        products.pack_tiles(block, packed.data());
        block.data = packed.data();
      }
      const Start<T> so_far = k == 0 ? start : Start<T>{c.data, c.row_stride};
      multiply_block(block, pack, b, so_far.at(row, 0), c.at(row, 0));
    }
  }
}

template <class T, class F>
void multiply_blocks(const Products<T>& products, MatrixView<T> a, Index cols, F factor,
                     Start<T> start, Output<T> c) {
  if (a.cols <= longest_sum) return multiply_part(products, a, cols, factor, start, c);
  const Index size = a.rows * cols;
  const Scratch<T> part(size);
  const Scratch<double> sum(size);
  for (Index i = 0; i < size; ++i)
    sum[i] = start.data ? static_cast<double>(*start.at(i / cols, i % cols).data) : 0;
  for (Index k = 0; k < a.cols; k += longest_sum) {
    multiply_part(
        products, a.col_range(k, std::min(k + longest_sum, a.cols)), cols,
        [&](Index inner, Index depth) { return factor(k + inner, depth); }, Start<T>{nullptr, 0},
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
void multiply_factor(MatrixView<T> a, const Factor<T>& b, Start<T> start, Output<T> c) {
  if (a.rows == 0 || b.cols == 0) return;
  if (a.cols == 0) return copy_start(a.rows, b.cols, start, c);
  multiply_blocks(
      b.products, a, b.cols, [&b](Index k, Index) { return b.from_row(k); }, start, c);
}

template <class T>
void multiply_packing(const Products<T>& products, MatrixView<T> a, MatrixView<T> b, Start<T> start,
                      Output<T> c) {
  const Index panel_size =
      products.packed_depth(std::min(b.rows, products.block_depth)) * products.panel_cols;
  const Scratch<T> packed(products.panels(b.cols) * panel_size);
  auto factor = [&](Index k, Index depth) {
    products.pack_panels(b.row_range(k, k + depth), packed.data(), panel_size);
    return Factor<T>{products, packed.data(), 0, panel_size, b.cols};
  };
  multiply_blocks(products, a, b.cols, factor, start, c);
}

template <class T>
void multiply_views(const Products<T>& products, MatrixView<T> a, MatrixView<T> b, Start<T> start,
                    Output<T> c) {
  // With at most two rows of A, full panels of B are read in place, unpacked.
  const bool in_place =
      a.rows <= 2 && b.col_stride == 1 && b.row_stride > 0 && !products.packed_depth.rounds();
  const Index width = products.panel_cols;
  const Index split = a.cols == 0 ? b.cols : in_place ? b.cols / width * width : 0;
  multiply_factor(a, Factor<T>{products, b.data, b.row_stride, width, split}, start, c);
  if (split < b.cols)
    multiply_packing(products, a, b.col_range(split, b.cols), start.at(0, split), c.at(0, split));
}

// C split into a grid whose cells are the tasks of a product, along its longer side as far as
// possible. Every grid gives the same bits. One cell for each thread: every cell more packs a part
// of A, or reads a part of B, once more.
struct Grid {
  Index row_cells = 1, col_cells = 1;

  Grid(Index rows, Index cols, Index depth) {
    constexpr Index smallest_side = 64;
    const int threads = usable_threads();
    if (threads == 1 || rows == 0 || cols == 0) return;
    const Index wanted = std::min<Index>(threads, rows * cols * depth / product_worth_a_fork);
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
template <class F>
void for_cells(const Grid& grid, Index rows, Index panels, F f) {
  if (rows == 0 || panels == 0) return;
  parallel_for(grid.row_cells * grid.col_cells, [&](Index cell) {
    const Index i = cell / grid.col_cells, j = cell % grid.col_cells;
    f(i * rows / grid.row_cells, (i + 1) * rows / grid.row_cells, j * panels / grid.col_cells,
      (j + 1) * panels / grid.col_cells);
  });
}

template <class T>
Factor<T> factor_of(const PackedMatrix<T>& b) {
  const Products<T>& products = b.products();
  return {products, b.data(), 0, products.packed_depth(b.rows()) * products.panel_cols, b.cols()};
}

template <class T>
Start<T> start_of(T* c, Index ldc, Write write) {
  return {write == Write::add ? c : nullptr, ldc};
}

template <class T>
void multiply_cells(const Grid& grid, MatrixView<T> a, const PackedMatrix<T>& b, Start<T> start,
                    Output<T> c) {
  const Index width = b.products().panel_cols, panels = b.products().panels(b.cols());
  for_cells(grid, a.rows, panels, [&](Index row, Index row_end, Index panel, Index panel_end) {
    const Index col = panel * width;
    const Factor<T> some =
        factor_of(b).from_panel(panel).first_cols(std::min(panel_end * width, b.cols()) - col);
    multiply_factor(a.row_range(row, row_end), some, start.at(row, col), c.at(row, col));
  });
}

}  // namespace

template <Real T>
PackedMatrix<T>::PackedMatrix(MatrixView<T> b)
    : PackedMatrix(b, kernels::products<T>(matmul_precision())) {}

template <Real T>
PackedMatrix<T>::PackedMatrix(MatrixView<T> b, const Products<T>& products)
    : products_(&products),
      rows_(b.rows),
      cols_(b.cols),
      data_(products.panels(b.cols) * products.panel_cols * products.packed_depth(b.rows)) {
  if (rows_ == 0 || cols_ == 0) return;  // nothing to copy, and the address may be null
  constexpr Index worth_a_fork = 1 << 18, worth_a_task = 1 << 16;  // elements
  const Index depth = products.packed_depth(rows_);
  const Index panels = ceil_div(worth_a_task, rows_ * products.panel_cols);
  const Index cols_per_task = rows_ * cols_ < worth_a_fork ? cols_ : panels * products.panel_cols;
  parallel_for(ceil_div(cols_, cols_per_task), [&](Index task) {
    const Index col = task * cols_per_task;
    products.pack_panels(b.col_range(col, std::min(col + cols_per_task, cols_)),
                         data_.data() + col * depth, depth * products.panel_cols);
  });
}

template <Real T>
void multiply(MatrixView<T> a, const PackedMatrix<T>& b, T* c, Index ldc, Write write) {
  multiply_factor(a, factor_of(b), start_of(c, ldc, write), Output<T>{c, ldc});
}

template <Real T>
void multiply(MatrixView<T> a, const PackedMatrix<T>& b, const T* start, Index start_stride, T* c,
              Index ldc) {
  multiply_factor(a, factor_of(b), Start<T>{start, start_stride}, Output<T>{c, ldc});
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
  const Products<T>& products = kernels::products<T>(matmul_precision());
  const Index width = products.panel_cols;
  for_cells(grid, a.rows, products.panels(b.cols), [&](Index, Index, Index panel, Index panel_end) {
    const Index col = panel * width, col_end = std::min(panel_end * width, b.cols);
    multiply_views(products, a, b.col_range(col, col_end), from.at(0, col), to.at(0, col));
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
