#pragma once

#include <reel/autograd/kernels/level.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/precision.h>

#include <algorithm>
#include <type_traits>

// The parts of a matrix product that depend on the instruction set. products.cpp, which defines
// them, is compiled once for each level; matmul.cpp uses those of the process's level.
namespace reel::kernels {

constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

/// One panel of B, or the first of several: element (k, j) of it is data[k * row_stride + j].
template <class T>
struct Panels {
  const T* data;
  Index row_stride, panel_stride;
};

/// What a tile asks the caches for while it computes: a line for each k, up to `lines`.
template <class T>
struct Ahead {
  static constexpr Index line = 64 / sizeof(T);  // elements
  const T* data = nullptr;
  Index lines = 0;  ///< at most the depth of the tile
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

/// One tile's part of A. Unpacked, row i begins at data + i * row_stride; packed, it is as
/// pack_tiles made it.
template <class T>
struct Strip {
  const T* data;
  Index row_stride, rows;
};

/// C (rows x cols, in one or more panels) = start + A * B over `depth` k.
template <class T>
using Tile = void (*)(Index depth, Strip<T> a, const Panels<T>& b, Index cols, Start<T> start,
                      Output<T> c, Ahead<T> ahead);

/// y = start + x * B over `depth` k for one row x, where element (k, j) of a panel of B is
/// panel[k * width + j]. The start may be null, for nothing, or y.
template <class T>
using RowTile = void (*)(Index depth, const T* x, const T* panel, const T* start, T* y);

/// The most vectors that the panel of a RowTile is wide: as many sums as hide the latency.
inline constexpr int row_tile_vectors = 8;

/// Splits rows into tiles of nearly equal height, so that none is too low to be fast. All but the
/// last one are multiples of `unit` rows high.
struct Tiling {
  Index rows, highest, unit = 1;
  Index count = ceil_div(rows, highest);
  Index begin(Index tile) const {
    return tile == count ? rows : tile * ceil_div(rows, unit) / count * unit;
  }
  Index height(Index tile) const { return begin(tile + 1) - begin(tile); }
};

/// How the factors of a product are packed: an element of a packed factor holds `k_per_element` k,
/// and the depth is filled up with zeros to a multiple of `k_multiple`.
struct PackedDepth {
  Index k_per_element = 1, k_multiple = 1;
  constexpr Index operator()(Index depth) const {
    return ceil_div(depth, k_multiple) * k_multiple / k_per_element;
  }
  constexpr bool rounds() const { return k_per_element > 1; }
};

template <Real T>
struct Products {
  Index lanes;               ///< the elements of a vector
  Index block_depth;         ///< the k of a block
  Index tile_rows;           ///< of the highest tile
  Index tile_unit;           ///< the rows of a tile are a multiple of it
  Index panel_cols;          ///< the columns of a panel of B
  Index pack_margin;         ///< spare elements after packed tiles
  PackedDepth packed_depth;  ///< the elements of a packed row of A, and the rows of a packed B
  /// Few rows leave registers for several panels, and need them.
  Index (*panels_at_once)(Index rows);
  /// The tile of this many rows over one panel with the first `vectors` of its vectors, or over
  /// panels_at_once(rows), with all of theirs.
  Tile<T> (*tile)(Index rows, Index vectors, bool packed);
  /// That of one row for a panel of this many vectors, from 1 to row_tile_vectors.
  RowTile<T> (*row_tile)(Index vectors);
  /// The tiles of A one after another: tile t begins at out + Tiling::begin(t) *
  /// packed_depth(a.cols).
  void (*pack_tiles)(MatrixView<T> a, T* out);
  /// The panels of B, panel_stride apart. The last one has the vectors that its columns need, and
  /// is zero-padded.
  void (*pack_panels)(MatrixView<T> b, T* out, Index panel_stride);

  Index panels(Index cols) const { return ceil_div(cols, panel_cols); }
  /// How far apart the rows of the panel are whose first column is followed by cols - 1 others.
  Index width(Index cols) const { return std::min(panel_cols, ceil_div(cols, lanes) * lanes); }
  Tiling tiling(Index rows) const { return {rows, tile_rows, tile_unit}; }
};

/// Those of a level.
template <Level level, Real T>
const Products<T>& products_at();
/// Those with factors rounded to bf16, in vectors or, where the level has them, in matrix tiles.
template <Level level>
const Products<float>& bf16_products_at(bool tiles);

/// Those of the process's level.
template <Real T>
const Products<T>& products() {
  return with_level([](auto level) -> const Products<T>& { return products_at<level(), T>(); });
}

/// And of this precision, if they are f32.
template <Real T>
const Products<T>& products(Precision precision) {
  if constexpr (std::is_same_v<T, float>)
    if (precision == Precision::bf16)
      return with_level(
          [](auto level) -> const Products<T>& { return bf16_products_at<level()>(has_tiles()); });
  return products<T>();
}

}  // namespace reel::kernels
