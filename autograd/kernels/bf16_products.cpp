#include <reel/autograd/kernels/products.h>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

// Products whose factors are rounded to bf16, as Precision defines them. Compiled once for each
// level; everything here is local to its object file.
//
// An element of a packed factor is a pair: the even k in its lower half, the odd k in its upper
// one. A is packed row by row, and B into the panels of the f32 products.

#pragma GCC diagnostic ignored "-Wignored-attributes"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace reel::kernels {
namespace {

namespace packets = Eigen::internal;
using P = packets::packet_traits<float>::type;
using Integers = packets::unpacket_traits<P>::integer_packet;

constexpr Index lanes = packets::packet_traits<float>::size;
constexpr PackedDepth packed_depth{.k_per_element = 2, .k_multiple = 32};
constexpr Index tile_side = 16;  // rows of A and of pairs of B, and columns of B, in 32 bits
constexpr Index depth_of_block = 512;
constexpr Index most_pairs = packed_depth(depth_of_block);

const Products<float>& f32_products() { return products_at<lowest_level, float>(); }

// --- packing ---

// The upper half is x in bf16, ties to even; a NaN stays one.
std::uint32_t rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  return is_nan ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
}

float pair(float even, float odd) {
  return std::bit_cast<float>(rounded(even) >> 16 | (rounded(odd) & 0xffff0000));
}

// Rows 2 p and 2 p + 1 of b become row p, and rows of zeros follow up to packed_depth(b.rows). The
// axis that is contiguous in b is so in the result.
MatrixView<float> write_pairs(MatrixView<float> b, float* out) {
  const Index pairs = packed_depth(b.rows), whole = b.rows / 2;
  if (b.col_stride == 1) {
    float* to = out;
    for (Index p = 0; p < ceil_div(b.rows, 2); ++p, to += b.cols) {
      const float* even = b.data + 2 * p * b.row_stride;
      const float* odd = even + b.row_stride;
      if (p < whole)
        for (Index j = 0; j < b.cols; ++j) to[j] = pair(even[j], odd[j]);
      else
        for (Index j = 0; j < b.cols; ++j) to[j] = pair(even[j], 0);
    }
    std::fill(to, out + pairs * b.cols, 0.f);
    return {out, pairs, b.cols, b.cols, 1};
  }
  for (Index j = 0; j < b.cols; ++j) {
    const float* from = b.data + j * b.col_stride;
    float* to = out + j * pairs;
    for (Index p = 0; p < whole; ++p) to[p] = pair(from[2 * p], from[2 * p + 1]);
    if (whole * 2 < b.rows) to[whole] = pair(from[2 * whole], 0);
    std::fill(to + ceil_div(b.rows, 2), to + pairs, 0.f);
  }
  return {out, pairs, b.cols, 1, pairs};
}

// To row-major pairs; there are whole vectors of them.
void transpose(MatrixView<float> pairs, float* to) {
  packets::PacketBlock<P, lanes> square;
  const Index whole = pairs.cols / lanes * lanes;
  for (Index p = 0; p < pairs.rows; p += lanes) {
    const float* from = pairs.data + p * pairs.row_stride;
    for (Index j = 0; j < whole; j += lanes) {
      for (int i = 0; i < lanes; ++i)
        square.packet[i] = packets::ploadu<P>(from + i * pairs.row_stride + j);
      packets::ptranspose(square);
      for (int i = 0; i < lanes; ++i)
        packets::pstoreu(to + (j + i) * pairs.rows + p, square.packet[i]);
    }
    for (Index j = whole; j < pairs.cols; ++j)
      for (Index i = 0; i < lanes; ++i) to[j * pairs.rows + p + i] = from[i * pairs.row_stride + j];
  }
}

void pack_tiles(MatrixView<float> a, float* out) {
  if (a.col_stride == 1) {
    write_pairs({a.data, a.cols, a.rows, 1, a.row_stride}, out);
    return;
  }
  const Scratch<float> columns(packed_depth(a.cols) * a.rows);
  transpose(write_pairs(a.transposed(), columns.data()), out);
}

void pack_panels(MatrixView<float> b, float* out, Index panel_stride) {
  const Products<float>& f32 = f32_products();
  const Scratch<float> pairs(packed_depth(b.rows) * std::min(f32.panel_cols, b.cols));
  for (Index col = 0; col < b.cols; col += f32.panel_cols, out += panel_stride) {
    const MatrixView<float> some = b.col_range(col, std::min(col + f32.panel_cols, b.cols));
    f32.pack_panels(write_pairs(some, pairs.data()), out, panel_stride);
  }
}

// --- multiplication ---

// c = start + a * b for some rows and at most block_cols columns. The rows of a are `pairs` pairs.
struct Block {
  Index pairs, rows, vectors;
  const float* a;
  const float* b;
  Index b_stride;
  Start<float> start;
  Output<float> c;
};
constexpr int block_vectors = 2;
constexpr Index block_cols = block_vectors * lanes;

using Multiply = void (*)(const Block&);

// In vectors. Registers hold two sums for each element of C: over the even and the odd k.
#ifdef __AVX512F__
constexpr int rows_at_once = 6;
#else
constexpr int rows_at_once = 3;
#endif

template <int Rows, int Vectors>
void multiply_rows(const Block& block) {
  const auto even_part = [](float x) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) << 16);
  };
  const auto odd_part = [](float x) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0xffff0000);
  };
  float left_even[Rows][most_pairs], left_odd[Rows][most_pairs];
  for (int i = 0; i < Rows; ++i)
    for (Index p = 0; p < block.pairs; ++p) {
      left_even[i][p] = even_part(block.a[i * block.pairs + p]);
      left_odd[i][p] = odd_part(block.a[i * block.pairs + p]);
    }
  const P upper = packets::pset1<P>(std::bit_cast<float>(0xffff0000));
  const float* row = block.b;
  Start<float> so_far = block.start;
  for (Index begin = 0; begin < block.pairs; begin += tile_side) {
    P even[Rows][Vectors], odd[Rows][Vectors];
    for (int i = 0; i < Rows; ++i)
      for (int v = 0; v < Vectors; ++v) even[i][v] = odd[i][v] = packets::pset1<P>(0);
    for (Index p = begin; p < begin + tile_side; ++p, row += block.b_stride) {
      P right_even[Vectors], right_odd[Vectors];
      for (int v = 0; v < Vectors; ++v) {
        const P pairs = packets::ploadu<P>(row + v * lanes);
        right_even[v] = packets::preinterpret<P>(
            packets::plogical_shift_left<16>(packets::preinterpret<Integers>(pairs)));
        right_odd[v] = packets::pand(pairs, upper);
      }
      for (int i = 0; i < Rows; ++i) {
        const P one = packets::pset1<P>(left_even[i][p]), two = packets::pset1<P>(left_odd[i][p]);
        for (int v = 0; v < Vectors; ++v) {
          even[i][v] = packets::pmadd(one, right_even[v], even[i][v]);
          odd[i][v] = packets::pmadd(two, right_odd[v], odd[i][v]);
        }
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) {
        const P before =
            so_far.data ? packets::ploadu<P>(so_far.at(i, v * lanes).data) : packets::pset1<P>(0);
        packets::pstoreu(block.c.at(i, v * lanes).data,
                         packets::padd(before, packets::padd(even[i][v], odd[i][v])));
      }
    so_far = {block.c.data, block.c.row_stride};
  }
}

constexpr auto functions = []<int... I>(std::integer_sequence<int, I...>) {
  return std::array<Multiply, sizeof...(I)>{
      multiply_rows<I / block_vectors + 1, I % block_vectors + 1>...};
}
(std::make_integer_sequence<int, rows_at_once * block_vectors>{});

void multiply_in_vectors(const Block& block) {
  const Tiling tiling{block.rows, rows_at_once};
  for (Index t = 0; t < tiling.count; ++t) {
    const Index row = tiling.begin(t);
    Block some = block;
    some.a += row * block.pairs;
    some.start = block.start.at(row, 0);
    some.c = block.c.at(row, 0);
    const Index function = (tiling.height(t) - 1) * block_vectors + block.vectors - 1;
    functions[static_cast<std::size_t>(function)](some);
  }
}

/// As a Tile. `multiply` writes whole vectors, and a multiple of `unit` rows.
template <Multiply multiply, Index unit, Index highest>
void tile(Index depth, Strip<float> a, const Panels<float>& b, Index cols, Start<float> start,
          Output<float> c, Ahead<float>) {
  cols = std::min(cols, b.row_stride);
  for (Index col = 0; col < cols; col += block_cols) {
    const Index width = std::min(cols - col, block_cols);
    Block block{packed_depth(depth), a.rows,       ceil_div(width, lanes), a.data,
                b.data + col,        b.row_stride, start.at(0, col),       c.at(0, col)};
    if (width % lanes == 0 && a.rows % unit == 0) {
      multiply(block);
      continue;
    }
    float sums[highest * block_cols] = {};
    const auto copy = [&](Start<float> from, Output<float> to) {
      for (Index i = 0; i < a.rows; ++i)
        for (Index j = 0; j < width; ++j) *to.at(i, j).data = *from.at(i, j).data;
    };
    if (start.data) copy(block.start, {sums, block_cols});
    block.start = {sums, block_cols};
    block.c = {sums, block_cols};
    multiply(block);
    copy({sums, block_cols}, c.at(0, col));
  }
}

template <Multiply multiply, Index unit>
Products<float> compiled() {
  constexpr Index highest = 2 * tile_side;
  Products<float> products = f32_products();
  products.block_depth = depth_of_block;
  products.tile_rows = highest;
  products.tile_unit = unit;
  products.pack_margin = (unit - 1) * most_pairs;
  products.packed_depth = packed_depth;
  products.panels_at_once = [](Index) { return Index{1}; };
  products.tile = [](Index, Index, bool) -> Tile<float> { return tile<multiply, unit, highest>; };
  products.pack_tiles = pack_tiles;
  products.pack_panels = pack_panels;
  return products;
}

// --- multiplication in matrix tiles (AMX) ---

#if defined(__AVX512F__) && defined(__linux__)

// Instructions by their names: the intrinsics of GCC 12 do not tell the compiler what they read.
// Tiles 0 to 3 are of C, 4 and 5 of A, 6 and 7 of B.
template <int tile>
void load(const float* from, Index row_stride) {
  asm volatile("tileloadd (%0,%1,4), %%tmm%c2"
               :
               : "r"(from), "r"(row_stride), "i"(tile)
               : "memory");
}
template <int tile>
void load_sum(Start<float> from) {
  if (from.data)
    load<tile>(from.data, from.row_stride);
  else
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}
template <int tile>
void store(Output<float> to) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,4)"
               :
               : "r"(to.data), "r"(to.row_stride), "i"(tile)
               : "memory");
}
template <int c, int a, int b>
void multiply_add() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
}

// All tiles have 16 rows of 64 bytes. A thread keeps its configuration.
void configure_tiles() {
  struct alignas(64) Configuration {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  thread_local bool configured = false;
  if (configured) return;
  const Configuration configuration;
  asm volatile("ldtilecfg %0" : : "m"(configuration));
  configured = true;
}

template <bool two_high, bool two_wide>
void multiply_tiles(const Block& block) {
  constexpr Index n = tile_side;
  load_sum<0>(block.start);
  if constexpr (two_wide) load_sum<1>(block.start.at(0, n));
  if constexpr (two_high) load_sum<2>(block.start.at(n, 0));
  if constexpr (two_high && two_wide) load_sum<3>(block.start.at(n, n));
  for (Index p = 0; p < block.pairs; p += n) {
    const float *a = block.a + p, *b = block.b + p * block.b_stride;
    load<4>(a, block.pairs);
    load<6>(b, block.b_stride);
    multiply_add<0, 4, 6>();
    if constexpr (two_wide) {
      load<7>(b + n, block.b_stride);
      multiply_add<1, 4, 7>();
    }
    if constexpr (two_high) {
      load<5>(a + n * block.pairs, block.pairs);
      multiply_add<2, 5, 6>();
      if constexpr (two_wide) multiply_add<3, 5, 7>();
    }
  }
  store<0>(block.c);
  if constexpr (two_wide) store<1>(block.c.at(0, n));
  if constexpr (two_high) store<2>(block.c.at(n, 0));
  if constexpr (two_high && two_wide) store<3>(block.c.at(n, n));
}

void multiply_in_tiles(const Block& block) {
  static_assert(lanes == tile_side);
  configure_tiles();
  const bool two_wide = block.vectors == 2;
  if (block.rows > tile_side)
    two_wide ? multiply_tiles<true, true>(block) : multiply_tiles<true, false>(block);
  else
    two_wide ? multiply_tiles<false, true>(block) : multiply_tiles<false, false>(block);
}

const Products<float>& tiled_products() {
  static const Products<float> products = compiled<multiply_in_tiles, tile_side>();
  return products;
}

#endif

const Products<float>& vector_products() {
  static const Products<float> products = compiled<multiply_in_vectors, 1>();
  return products;
}

}  // namespace

template <>
const Products<float>& bf16_products_at<lowest_level>([[maybe_unused]] bool tiles) {
#if defined(__AVX512F__) && defined(__linux__)
  if (tiles) return tiled_products();
#endif
  return vector_products();
}

}  // namespace reel::kernels
