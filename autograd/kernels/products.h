#pragma once

#include <reel/autograd/kernels/level.h>
#include <reel/autograd/kernels/matmul.h>

#include <algorithm>

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

/// One tile's part of A. Unpacked, row i begins at data + i * row_stride; packed, the elements of
/// one k are contiguous.
template <class T>
struct Strip {
  const T* data;
  Index row_stride;
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

/// Splits rows into tiles of nearly equal height, so that none is too low to be fast.
struct Tiling {
  Index rows, highest;
  Index count = ceil_div(rows, highest);
  Index begin(Index tile) const { return tile * rows / count; }
  Index height(Index tile) const { return begin(tile + 1) - begin(tile); }
};

template <Real T>
struct Products {
  Index lanes;        ///< the elements of a vector
  Index tile_rows;    ///< of the highest tile
  Index panel_cols;   ///< the columns of a panel of B
  Index pack_margin;  ///< spare elements after packed tiles
  /// Few rows leave registers for several panels, and need them.
  Index (*panels_at_once)(Index rows);
  /// The tile of this many rows over one panel with the first `vectors` of its vectors, or over
  /// panels_at_once(rows), with all of theirs.
  Tile<T> (*tile)(Index rows, Index vectors, bool packed);
  /// That of one row for a panel of this many vectors, from 1 to row_tile_vectors.
  RowTile<T> (*row_tile)(Index vectors);
  /// The tiles of A one after another: tile t begins at out + Tiling::begin(t) * a.cols.
  void (*pack_tiles)(MatrixView<T> a, T* out);
  /// The panels of B, panel_stride apart. The last one has the vectors that its columns need, and
  /// is zero-padded.
  void (*pack_panels)(MatrixView<T> b, T* out, Index panel_stride);

  Index panels(Index cols) const { return ceil_div(cols, panel_cols); }
  /// How far apart the rows of the panel are whose first column is followed by cols - 1 others.
  Index width(Index cols) const { return std::min(panel_cols, ceil_div(cols, lanes) * lanes); }
  Tiling tiling(Index rows) const { return {rows, tile_rows}; }
};

/// Those of a level.
template <Level level, Real T>
const Products<T>& products_at();

/// Those of the process's level.
template <Real T>
const Products<T>& products() {
  return with_level([](auto level) -> const Products<T>& { return products_at<level(), T>(); });
}

}  // namespace reel::kernels
