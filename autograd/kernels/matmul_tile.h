#pragma once

#include <reel/autograd/shape.h>

#include <Eigen/Core>

#include <array>
#include <cstddef>
#include <utility>

// The inner part of the matrix product: a tile of C in registers. Private to matmul.cpp.

// Template arguments ignore the alignment attribute of Eigen's packets; all accesses are unaligned.
#pragma GCC diagnostic ignored "-Wignored-attributes"
#ifndef __clang__
// GCC 12 warns about values that its own AVX-512 header leaves undefined on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace reel::kernels::detail {

namespace packets = Eigen::internal;

template <class T>
using Packet = typename packets::packet_traits<T>::type;

template <class T>
inline constexpr Index lanes = packets::packet_traits<T>::size;

// A tile is tile_rows x 2 packets, which leaves registers for two packets of B and one broadcast
// element of A. AVX-512 has twice the registers.
#ifdef __AVX512F__
inline constexpr int tile_rows = 12;
#else
inline constexpr int tile_rows = 6;
#endif

/// The columns of a panel of B.
template <class T>
inline constexpr Index panel_cols = 2 * lanes<T>;

constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

/// B as panels: element (k, j) of a panel is data[k * row_stride + j].
template <class T>
struct Panels {
  const T* data;
  Index row_stride, panel_stride;
  Panels at(Index k, Index panel) const {
    return {data + k * row_stride + panel * panel_stride, row_stride, panel_stride};
  }
};

/// What a product is added to, with rows row_stride elements apart. Null: nothing.
template <class T>
struct Start {
  const T* data;
  Index row_stride;
  Start at(Index row, Index col) const {
    return {data ? data + row * row_stride + col : nullptr, row_stride};
  }
};

template <class T>
struct Output {
  T* data;
  Index row_stride;
  Output at(Index row, Index col) const { return {data + row * row_stride + col, row_stride}; }
};

/// One tile's part of A. Unpacked, row i begins at data + i * row_stride; packed, the elements of
/// one k are contiguous.
template <class T>
struct Strip {
  const T* data;
  Index row_stride;
};

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

// Few rows leave registers for more panels, and need them: each addition waits for the previous one
// of its sum, so eight or more independent sums are needed to hide the latency.
constexpr int panels_at_once(Index rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

template <class T>
using TileFunction = void (*)(Index, Strip<T>, const Panels<T>&, Index, Start<T>, Output<T>);

// By the number of rows.
template <class T, bool Wide, bool Packed>
inline constexpr auto tile_functions = []<int... I>(std::integer_sequence<int, I...>) {
  return std::array<TileFunction<T>, tile_rows + 1>{nullptr, tile < T, I + 1,
                                                    Wide ? panels_at_once(I + 1) : 1, Packed > ...};
}
(std::make_integer_sequence<int, tile_rows>{});

/// The tile kernel for this number of rows, over one panel or, if `wide`, over
/// panels_at_once(rows).
template <class T>
TileFunction<T> tile_function(Index rows, bool wide, bool packed) {
  const auto i = static_cast<std::size_t>(rows);
  if (wide) return packed ? tile_functions<T, true, true>[i] : tile_functions<T, true, false>[i];
  return packed ? tile_functions<T, false, true>[i] : tile_functions<T, false, false>[i];
}

/// Splits rows into tiles of nearly equal height, so that none is too low to be fast.
struct Tiling {
  Index rows;
  Index count = ceil_div(rows, tile_rows);
  Index begin(Index tile) const { return tile * rows / count; }
  Index height(Index tile) const { return begin(tile + 1) - begin(tile); }
};

}  // namespace reel::kernels::detail
