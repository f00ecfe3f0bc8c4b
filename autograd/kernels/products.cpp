#include <reel/autograd/kernels/prefetch.h>
#include <reel/autograd/kernels/products.h>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

// Compiled once for each level. Everything here is local to its object file, so that the linker
// cannot take a function of one level for that of another.

// Template arguments ignore the alignment attribute of Eigen's packets; all accesses are unaligned.
#pragma GCC diagnostic ignored "-Wignored-attributes"
#ifndef __clang__
// GCC 12 warns about values that its own AVX-512 header leaves undefined on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace reel::kernels {
namespace {

namespace packets = Eigen::internal;

template <class T>
using Packet = typename packets::packet_traits<T>::type;

template <class T>
constexpr Index lanes = packets::packet_traits<T>::size;

// A tile is tile_rows x 2 packets, which leaves registers for two packets of B and one broadcast
// element of A. AVX-512 has twice the registers.
#ifdef __AVX512F__
constexpr int tile_rows = 12;
#else
constexpr int tile_rows = 6;
#endif

/// The columns of a panel of B.
template <class T>
constexpr Index panel_cols = 2 * lanes<T>;

/// C (Rows x cols, in Count panels) = start + A * B over `depth` k.
template <class T, int Rows, int Count, bool Packed>
void tile(Index depth, Strip<T> a, const Panels<T>& b, Index cols, Start<T> start, Output<T> c) {
  using P = Packet<T>;
  constexpr int vectors = 2 * Count;
  constexpr Index width = Count * panel_cols<T>;
  P sum[Rows][vectors];
  const T* row[Rows];
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < vectors; ++v) sum[i][v] = packets::pset1<P>(T(0));
    row[i] = a.data + i * a.row_stride;
    __builtin_prefetch(c.data + i * c.row_stride, 1);
  }
  const T* panel = b.data;
  // Fewer instructions besides the multiplications: a hyperthread on the same core takes half of
  // the issue slots, and these need more than half.
#pragma GCC unroll 4
  for (Index k = 0; k < depth; ++k, panel += b.row_stride) {
    P right[vectors];
    for (int v = 0; v < vectors; ++v)
      right[v] = packets::ploadu<P>(panel + v / 2 * b.panel_stride + v % 2 * lanes<T>);
    for (int i = 0; i < Rows; ++i) {
      const P left = packets::pset1<P>(Packed ? a.data[k * Rows + i] : row[i][k]);
      for (int v = 0; v < vectors; ++v) sum[i][v] = packets::pmadd(left, right[v], sum[i][v]);
    }
  }
  // Unrolled, so that the sums stay in registers.
  const auto store = [&sum](Start<T> from, Output<T> to) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) {
        const Index col = v * lanes<T>;
        P total = sum[i][v];
        if (from.data) total = packets::padd(packets::ploadu<P>(from.at(i, col).data), total);
        packets::pstoreu(to.at(i, col).data, total);
      }
  };
  if (cols >= width) return start.data ? store(start, c) : store({}, c);
  // The last panel may be wider than the remaining columns of C; the memory beyond must not be
  // written.
  T sums[Rows * width];
  store({}, {sums, width});
  for (int i = 0; i < Rows; ++i)
    for (Index j = 0; j < cols; ++j) {
      const T total = sums[i * width + j];
      *c.at(i, j).data = start.data ? *start.at(i, j).data + total : total;
    }
}

// By the number of rows.
template <class T, bool Wide, bool Packed>
constexpr auto tile_functions = []<int... I>(std::integer_sequence<int, I...>) {
  return std::array<Tile<T>, tile_rows + 1>{nullptr, tile < T, I + 1,
                                            Wide ? panels_at_once(I + 1) : 1, Packed > ...};
}
(std::make_integer_sequence<int, tile_rows>{});

/// The tile kernel for this number of rows, over one panel or, if `wide`, over
/// panels_at_once(rows).
template <class T>
Tile<T> tile_function(Index rows, bool wide, bool packed) {
  const auto i = static_cast<std::size_t>(rows);
  if (wide) return packed ? tile_functions<T, true, true>[i] : tile_functions<T, true, false>[i];
  return packed ? tile_functions<T, false, true>[i] : tile_functions<T, false, false>[i];
}

template <class T>
using Square = packets::PacketBlock<Packet<T>, lanes<T>>;

/// The transpose of lanes x lanes elements; if there are fewer rows, the last one is repeated.
template <class T>
void load_transposed(const T* from, Index row_stride, Index rows, Square<T>& square) {
  for (int i = 0; i < lanes<T>; ++i)
    square.packet[i] = packets::ploadu<Packet<T>>(from + std::min<Index>(i, rows - 1) * row_stride);
  packets::ptranspose(square);
}

// The height of a tile of A rounded up to packets. Packing stores whole packets: the excess is
// overwritten by the next k or the next tile, and needs pack_margin spare elements after the last.
template <class T>
constexpr Index wide_rows = ceil_div(tile_rows, lanes<T>) * lanes<T>;

template <class T>
constexpr Index pack_margin = lanes<T>;

/// One tile of an A with contiguous rows.
template <class T>
void pack_tile_of_rows(const T* from, Index row_stride, Index rows, Index depth, T* to) {
  Square<T> squares[wide_rows<T> / lanes<T>];
  const Index count = ceil_div(rows, lanes<T>), whole = depth / lanes<T> * lanes<T>;
  for (Index k = 0; k < whole; k += lanes<T>) {
    for (Index s = 0; s < count; ++s) {
      const Index row = s * lanes<T>;
      load_transposed<T>(from + row * row_stride + k, row_stride, rows - row, squares[s]);
    }
    for (int i = 0; i < lanes<T>; ++i)
      for (Index s = 0; s < count; ++s)
        packets::pstoreu(to + (k + i) * rows + s * lanes<T>, squares[s].packet[i]);
  }
  for (Index k = whole; k < depth; ++k)
    for (Index i = 0; i < rows; ++i) to[k * rows + i] = from[i * row_stride + k];
}

/// All tiles of an A with contiguous columns.
template <class T>
void pack_tiles_of_columns(MatrixView<T> a, T* out) {
  constexpr Index run = 16;  // process these columns for all tiles while they are in the cache
  const Tiling tiling{a.rows, tile_rows};
  for (Index first = 0; first < a.cols; first += run)
    for (Index t = 0; t < tiling.count; ++t) {
      const Index row = tiling.begin(t), rows = tiling.height(t);
      const T* from = a.data + row;
      T* to = out + row * a.cols;
      const Index end = std::min(first + run, a.cols);
      // Whole packets must not leave the matrix where they read, nor the tile where they write.
      const Index last_wide = a.cols - ceil_div(wide_rows<T>, rows);
      const Index end_wide = row + wide_rows<T> <= a.rows ? std::min(end, last_wide + 1) : first;
      Index k = first;
      for (; k < end_wide; ++k)
        for (Index i = 0; i < wide_rows<T>; i += lanes<T>)
          packets::pstoreu(to + k * rows + i,
                           packets::ploadu<Packet<T>>(from + k * a.col_stride + i));
      for (; k < end; ++k) std::copy_n(from + k * a.col_stride, rows, to + k * rows);
    }
}

/// The tiles of A one after another: tile t begins at out + Tiling::begin(t) * a.cols.
template <class T>
void pack_tiles(MatrixView<T> a, T* out) {
  if (a.col_stride != 1) return pack_tiles_of_columns(a, out);
  const Tiling tiling{a.rows, tile_rows};
  for (Index t = 0; t < tiling.count; ++t) {
    const Index row = tiling.begin(t);
    pack_tile_of_rows(a.data + row * a.row_stride, a.row_stride, tiling.height(t), a.cols,
                      out + row * a.cols);
  }
}

/// One panel of a B with contiguous columns.
template <class T>
void pack_panel_of_columns(MatrixView<T> b, T* out) {
  constexpr Index width = panel_cols<T>;
  Square<T> square;
  const Index whole = b.cols == width ? b.rows / lanes<T> * lanes<T> : 0;
  const T* next_panel = b.data + width * b.col_stride;
  for (Index k = 0; k < whole; k += lanes<T>) {
    prefetch(next_panel + k * width, lanes<T> * width);
    for (Index j = 0; j < width; j += lanes<T>) {
      load_transposed<T>(b.data + j * b.col_stride + k, b.col_stride, lanes<T>, square);
      for (int i = 0; i < lanes<T>; ++i)
        packets::pstoreu(out + (k + i) * width + j, square.packet[i]);
    }
  }
  for (Index k = whole; k < b.rows; ++k)
    for (Index j = 0; j < width; ++j)
      out[k * width + j] = j < b.cols ? b.data[j * b.col_stride + k] : T(0);
}

/// Panels of a B with contiguous rows.
template <class T>
void pack_panels_of_rows(MatrixView<T> b, T* out, Index panel_stride) {
  constexpr Index width = panel_cols<T>, ahead = 8;  // rows
  const Index whole = b.cols / width, rest = b.cols % width;
  for (Index k = 0; k < b.rows; ++k) {
    const T* from = b.data + k * b.row_stride;
    T* to = out + k * width;
    prefetch(from + ahead * b.row_stride, b.cols);
    for (Index p = 0; p < whole; ++p, from += width, to += panel_stride)
      for (Index j = 0; j < width; j += lanes<T>)
        packets::pstoreu(to + j, packets::ploadu<Packet<T>>(from + j));
    if (rest > 0) std::fill(std::copy_n(from, rest, to), to + width, T(0));
  }
}

/// The panels of B, panel_stride apart, the last one zero-padded.
template <class T>
void pack_panels(MatrixView<T> b, T* out, Index panel_stride) {
  constexpr Index width = panel_cols<T>, together = 4 * width;  // long reads, few write streams
  const Index step = b.col_stride == 1 ? together : width;
  for (Index col = 0; col < b.cols; col += step) {
    const MatrixView<T> some = b.col_range(col, std::min(col + step, b.cols));
    T* to = out + col / width * panel_stride;
    if (b.col_stride == 1)
      pack_panels_of_rows(some, to, panel_stride);
    else
      pack_panel_of_columns(some, to);
  }
}

template <Real T>
constexpr Products<T> compiled{tile_rows,        panel_cols<T>, pack_margin<T>,
                               tile_function<T>, pack_tiles<T>, pack_panels<T>};

}  // namespace

template <>
const Products<float>& products_at<lowest_level, float>() {
  return compiled<float>;
}
template <>
const Products<double>& products_at<lowest_level, double>() {
  return compiled<double>;
}

}  // namespace reel::kernels
