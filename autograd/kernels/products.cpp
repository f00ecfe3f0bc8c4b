#include <reel/autograd/kernels/prefetch.h>
#include <reel/autograd/kernels/products.h>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>
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

// A tile is tile_rows x panel_vectors packets, which leaves registers for as many packets of B and
// one broadcast element of A. AVX-512 has twice the registers, and needs the wider tile: each k of
// it loads 10 values for 24 multiplications, and one of 12 rows and 2 packets loads 14.
constexpr int tile_rows = 6;
#ifdef __AVX512F__
constexpr int panel_vectors = 4;
#else
constexpr int panel_vectors = 2;
#endif

/// The columns of a panel of B.
template <class T>
constexpr Index panel_cols = panel_vectors* lanes<T>;

/// Each addition waits for the previous one of its sum, so eight or more independent sums are
/// needed to hide the latency.
constexpr Index panels_at_once(Index rows) { return ceil_div(8, rows * panel_vectors); }

/// C (Rows x cols, in one panel or several whole ones) = start + A * B over `depth` k.
template <class T, int Rows, int vectors, bool Packed>
void tile(Index depth, Strip<T> a, const Panels<T>& b, Index cols, Start<T> start, Output<T> c,
          Ahead<T> ahead) {
  using P = Packet<T>;
  constexpr Index width = vectors * lanes<T>;
  P sum[Rows][vectors];
  const T* row[Rows];
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < vectors; ++v) sum[i][v] = packets::pset1<P>(T(0));
    row[i] = a.data + i * a.row_stride;
  }
  // C may come from memory, so it is asked for at once; in a deep product B pushes it out of the
  // first-level cache meanwhile, and it is asked for again.
  constexpr Index late = 128;
  const auto ask_for_c = [c] {
    for (int i = 0; i < Rows; ++i)
      for (Index col = 0; col < width; col += Ahead<T>::line)
        __builtin_prefetch(c.at(i, col).data, 1);
  };
  ask_for_c();
  const T* panel = b.data;
  const auto multiply = [&](Index k) __attribute__((always_inline)) {
    P right[vectors];
    for (int v = 0; v < vectors; ++v)
      right[v] = packets::ploadu<P>(panel + v / panel_vectors * b.panel_stride +
                                    v % panel_vectors * lanes<T>);
    for (int i = 0; i < Rows; ++i) {
      const P left = packets::pset1<P>(Packed ? a.data[k * Rows + i] : row[i][k]);
      for (int v = 0; v < vectors; ++v) sum[i][v] = packets::pmadd(left, right[v], sum[i][v]);
    }
    panel += b.row_stride;
  };
  // Unrolled for fewer instructions besides the multiplications: a hyperthread on the same core
  // takes half of the issue slots, and these need more than half.
  Index k = 0;
#pragma GCC unroll 4
  for (; k < ahead.lines; ++k) {
    __builtin_prefetch(ahead.data + k * Ahead<T>::line, 0, 2);
    multiply(k);
  }
#pragma GCC unroll 4
  for (; k < depth - late; ++k) multiply(k);
  if (k > 0) ask_for_c();
#pragma GCC unroll 4
  for (; k < depth; ++k) multiply(k);
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

// By the number of rows, and of vectors beyond a panel's: 0 for several panels.
template <class T, bool Packed>
constexpr auto tile_functions = []<int... I>(std::integer_sequence<int, I...>) {
  constexpr auto vectors = [](int rows, int v) {
    return v > 0 ? v : static_cast<int>(panels_at_once(rows)) * panel_vectors;
  };
  constexpr int kinds = panel_vectors + 1;
  return std::array<Tile<T>, sizeof...(I)>{
      tile<T, I / kinds + 1, vectors(I / kinds + 1, I % kinds), Packed>...};
}
(std::make_integer_sequence<int, tile_rows*(panel_vectors + 1)>{});

template <class T>
Tile<T> tile_function(Index rows, Index vectors, bool packed) {
  const Index kind = vectors > panel_vectors ? 0 : vectors;
  const auto i = static_cast<std::size_t>((rows - 1) * (panel_vectors + 1) + kind);
  return packed ? tile_functions<T, true>[i] : tile_functions<T, false>[i];
}

/// y = start + x * B for one row x, over `depth` k and a panel of this many vectors.
template <class T, int Vectors>
void row_tile(Index depth, const T* x, const T* panel, const T* start, T* y) {
  using P = Packet<T>;
  P sum[Vectors];
  // Everything is unrolled, so that the sums are never in memory.
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) sum[v] = packets::pset1<P>(T(0));
#pragma GCC unroll 4
  for (Index k = 0; k < depth; ++k, panel += Vectors * lanes<T>) {
    const P left = packets::pset1<P>(x[k]);
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v)
      sum[v] = packets::pmadd(left, packets::ploadu<P>(panel + v * lanes<T>), sum[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
    P total = sum[v];
    if (start) total = packets::padd(packets::ploadu<P>(start + v * lanes<T>), total);
    packets::pstoreu(y + v * lanes<T>, total);
  }
}

template <class T>
RowTile<T> row_tile_function(Index vectors) {
  static constexpr auto functions = []<int... I>(std::integer_sequence<int, I...>) {
    return std::array{&row_tile<T, I + 1>...};
  }
  (std::make_integer_sequence<int, row_tile_vectors>{});
  return functions[static_cast<std::size_t>(vectors - 1)];
}

template <class P>
constexpr Index size = packets::unpacket_traits<P>::size;

template <class P>
using Square = packets::PacketBlock<P, size<P>>;

/// The transpose of as many rows as columns; if there are fewer rows, the last one is repeated.
template <class P, class T>
void load_transposed(const T* from, Index row_stride, Index rows, Square<P>& square) {
  for (int i = 0; i < size<P>; ++i)
    square.packet[i] = packets::ploadu<P>(from + std::min<Index>(i, rows - 1) * row_stride);
  packets::ptranspose(square);
}

// The packet for a column of a tile of A, of which 16 lanes would be mostly empty.
template <class T>
using Column = std::conditional_t<(lanes<T> > 8),
                                  typename packets::unpacket_traits<Packet<T>>::half, Packet<T>>;

// The height of a tile of A rounded up to packets. Packing stores whole packets: the excess is
// overwritten by the next k or the next tile, and needs pack_margin spare elements after the last.
template <class T>
constexpr Index wide_rows = ceil_div(tile_rows, size<Column<T>>) * size<Column<T>>;

template <class T>
constexpr Index pack_margin = size<Column<T>>;

/// One tile of an A with contiguous rows.
template <class T>
void pack_tile_of_rows(const T* from, Index row_stride, Index rows, Index depth, T* to) {
  using P = Column<T>;
  Square<P> squares[wide_rows<T> / size<P>];
  const Index count = ceil_div(rows, size<P>), whole = depth / size<P> * size<P>;
  for (Index k = 0; k < whole; k += size<P>) {
    for (Index s = 0; s < count; ++s) {
      const Index row = s * size<P>;
      load_transposed<P>(from + row * row_stride + k, row_stride, rows - row, squares[s]);
    }
    for (int i = 0; i < size<P>; ++i)
      for (Index s = 0; s < count; ++s)
        packets::pstoreu(to + (k + i) * rows + s * size<P>, squares[s].packet[i]);
  }
  for (Index k = whole; k < depth; ++k)
    for (Index i = 0; i < rows; ++i) to[k * rows + i] = from[i * row_stride + k];
}

/// All tiles of an A with contiguous columns.
template <class T>
void pack_tiles_of_columns(MatrixView<T> a, T* out) {
  using P = Column<T>;
  constexpr Index run = 16;  // process these columns for all tiles while they are in the cache
  const Tiling tiling{a.rows, tile_rows};
  for (Index first = 0; first < a.cols; first += run) {
    for (Index k = first + run; k < std::min(first + 2 * run, a.cols); ++k)
      prefetch(a.data + k * a.col_stride, a.rows);
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
        for (Index i = 0; i < wide_rows<T>; i += size<P>)
          packets::pstoreu(to + k * rows + i, packets::ploadu<P>(from + k * a.col_stride + i));
      for (; k < end; ++k) std::copy_n(from + k * a.col_stride, rows, to + k * rows);
    }
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
  const Index width = ceil_div(b.cols, lanes<T>) * lanes<T>;
  Square<Packet<T>> square;
  const Index whole = b.cols == width ? b.rows / lanes<T> * lanes<T> : 0;
  const T* next_panel = b.data + width * b.col_stride;
  for (Index k = 0; k < whole; k += lanes<T>) {
    prefetch(next_panel + k * width, lanes<T> * width);
    for (Index j = 0; j < width; j += lanes<T>) {
      load_transposed<Packet<T>>(b.data + j * b.col_stride + k, b.col_stride, lanes<T>, square);
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
  const Index rest_width = ceil_div(rest, lanes<T>) * lanes<T>;
  for (Index k = 0; k < b.rows; ++k) {
    const T* from = b.data + k * b.row_stride;
    T* to = out + k * width;
    prefetch(from + ahead * b.row_stride, b.cols);
    for (Index p = 0; p < whole; ++p, from += width, to += panel_stride)
      for (Index j = 0; j < width; j += lanes<T>)
        packets::pstoreu(to + j, packets::ploadu<Packet<T>>(from + j));
    if (rest == 0) continue;
    to = out + whole * panel_stride + k * rest_width;
    std::fill(std::copy_n(from, rest, to), to + rest_width, T(0));
  }
}

/// The panels of B, panel_stride apart.
template <class T>
void pack_panels(MatrixView<T> b, T* out, Index panel_stride) {
  constexpr Index width = panel_cols<T>, together = 8 * lanes<T>;  // long reads, few write streams
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
constexpr Products<T> compiled{
    .lanes = lanes<T>,
    .block_depth = block_depth,
    .tile_rows = tile_rows,
    .tile_unit = 1,
    .panel_cols = panel_cols<T>,
    .pack_margin = pack_margin<T>,
    .packed_depth = {},
    .panels_at_once = panels_at_once,
    .tile = tile_function<T>,
    .row_tile = row_tile_function<T>,
    .pack_tiles = pack_tiles<T>,
    .pack_panels = pack_panels<T>,
};

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
