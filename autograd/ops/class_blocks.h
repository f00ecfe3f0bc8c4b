#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include <reel/autograd/ops/log_sum.h>

// Softmax over classes that come in blocks, for a chunk of rows. The logits of a block lie class by
// class, so that vectors go over the rows and nothing is added up across lanes. A block has largest
// logits of its own: its powers can be taken before those of the other blocks exist.
namespace reel::detail {

/// The most rows of a chunk.
inline constexpr Index most_chunk_rows = 256;

/// The rows together with those that fill up the last vector.
constexpr Index padded_rows(Index rows) { return (rows + 15) / 16 * 16; }

/// A number for each row of a chunk.
template <class T>
using PerRow = std::array<T, most_chunk_rows>;

/// The logits x + bias [classes, width].
template <class T>
struct BlockOfLogits {
  const T* x;
  const T* bias;  ///< null if there is none
  Index classes, width;

  /// Calls f(row of x, bias, class) for each class from `begin` to `end`.
  template <class F>
  void each_class(Index begin, Index end, F f) const {
    for (Index c = begin; c < end; ++c) f(x + c * width, bias ? bias[c] : T(0), c);
  }
};

/// What the logits of each row come to, in a block or in all: see Powers.
template <class T>
struct RowSums {
  PerRow<T> largest, hits, others;
  PerRow<double> below;  ///< Σ (x - largest), 0 where it is not needed
  double classes;
};

template <class T>
LogSum<T> log_sum(const RowSums<T>& sums, std::size_t r) {
  return {sums.largest[r], kernels::vlog1p((sums.hits[r] - 1) + sums.others[r])};
}
template <class T>
T share_of_largest(const RowSums<T>& sums, std::size_t r) {
  return kernels::vexp(-log_sum(sums, r).rest);
}

template <class T>
void find_largest(const BlockOfLogits<T>& block, T* largest) {
  PerRow<Ordered<T>> top;
  Ordered<T>* const most = top.data();
  std::fill_n(most, block.width, lowest_ordered<T>);
  block.each_class(0, block.classes, [&](const T* x, T bias, Index) {
    for (Index r = 0; r < block.width; ++r) most[r] = std::max(most[r], ordered(x[r] + bias));
  });
  for (Index r = 0; r < block.width; ++r) largest[r] = from_ordered<T>(most[r]);
}

/// Σ (x - largest) of each row.
template <class T>
void add_distances(const BlockOfLogits<T>& block, const T* largest, double* below) {
  block.each_class(0, block.classes, [&](const T* x, T bias, Index) {
    for (Index r = 0; r < block.width; ++r)
      below[r] += static_cast<double>(from_largest(x[r] + bias, largest[r]));
  });
}

/// Counts and adds the powers e^(x - largest) as Powers does, and stores them unless `powers` is
/// null.
template <class T>
void add_powers(const BlockOfLogits<T>& block, const T* largest, T* hits, T* others, T* powers) {
  constexpr Index group = 16;  // terms that are added before their sum is, in double
  PerRow<T> some_sums, no_powers;
  PerRow<double> all_sums;
  T *const some = some_sums.data(), *const spare = no_powers.data();
  double* const all = all_sums.data();
  std::fill_n(all, block.width, 0.0);
  for (Index begin = 0; begin < block.classes; begin += group) {
    std::fill_n(some, block.width, T(0));
    const Index end = std::min(begin + group, block.classes);
    block.each_class(begin, end, [=, width = block.width](const T* x, T bias, Index c) {
      T* const to = powers ? powers + c * width : spare;
      for (Index r = 0; r < width; ++r) {
        const T value = x[r] + bias, power = kernels::vexp(value - largest[r]);
        const bool hit = value == largest[r];
        hits[r] += hit ? T(1) : T(0);
        some[r] += hit ? T(0) : power;
        to[r] = hit ? T(1) : power;
      }
    });
    for (Index r = 0; r < block.width; ++r) all[r] += static_cast<double>(some[r]);
  }
  for (Index r = 0; r < block.width; ++r) others[r] = static_cast<T>(all[r]);
}

/// What the logits of a block come to, and e^(x - largest) in `powers` unless that is null.
template <class T>
RowSums<T> take_powers(const BlockOfLogits<T>& block, bool needs_distances, T* powers) {
  RowSums<T> sums;
  PerRow<T> largest, hits, others;
  sums.classes = static_cast<double>(block.classes);
  find_largest(block, sums.largest.data());
  std::fill_n(sums.below.data(), block.width, 0.0);
  if (needs_distances) add_distances(block, sums.largest.data(), sums.below.data());
  for (Index r = 0; r < block.width; ++r) {  // -∞ from -∞ would not be 0
    const auto i = static_cast<std::size_t>(r);
    largest[i] = sums.largest[i] == -std::numeric_limits<T>::infinity() ? T(0) : sums.largest[i];
  }
  std::fill_n(hits.data(), block.width, T(0));
  add_powers(block, largest.data(), hits.data(), others.data(), powers);
  std::copy_n(hits.data(), block.width, sums.hits.data());
  std::copy_n(others.data(), block.width, sums.others.data());
  return sums;
}

/// What the logits of several blocks come to. Their `largest` are replaced by the factors of their
/// powers, e^(largest - that of all).
template <class T>
RowSums<T> unite(std::span<RowSums<T>> blocks, Index width) {
  const auto rows = static_cast<std::size_t>(width);
  RowSums<T> all{};
  PerRow<Ordered<T>> top;
  PerRow<double> others{};
  top.fill(lowest_ordered<T>);
  for (const RowSums<T>& block : blocks)
    for (std::size_t r = 0; r < rows; ++r) top[r] = std::max(top[r], ordered(block.largest[r]));
  for (std::size_t r = 0; r < rows; ++r) all.largest[r] = from_ordered<T>(top[r]);
  for (RowSums<T>& block : blocks)
    for (std::size_t r = 0; r < rows; ++r) {
      const bool hit = block.largest[r] == all.largest[r];
      const T distance = block.largest[r] - all.largest[r];
      const T share = hit ? T(1) : kernels::vexp(distance);
      all.hits[r] += hit ? block.hits[r] : T(0);
      others[r] +=
          static_cast<double>(hit ? block.others[r] : (block.hits[r] + block.others[r]) * share);
      all.below[r] += block.below[r] + (hit ? 0 : block.classes * static_cast<double>(distance));
      block.largest[r] = share;
    }
  for (std::size_t r = 0; r < rows; ++r) all.others[r] = static_cast<T>(others[r]);
  return all;
}

/// d = scale · factor · power - shift, and 0 where the scale is 0, whatever the power.
template <class T>
void scale_powers(const T* powers, Index classes, Index width, const PerRow<T>& scale,
                  const PerRow<T>& factor, const PerRow<T>& shift, T* d) {
  PerRow<T> by, less;
  for (std::size_t r = 0; r < static_cast<std::size_t>(width); ++r) {
    by[r] = scale[r] == 0 ? T(0) : scale[r] * factor[r];
    less[r] = shift[r];
  }
  // A row that does not count may have powers that are not finite.
  PerRow<std::int32_t> counts;
  for (std::size_t r = 0; r < static_cast<std::size_t>(width); ++r) counts[r] = scale[r] != 0;
  for (Index c = 0; c < classes; ++c, powers += width, d += width)
    for (Index r = 0; r < width; ++r) {
      const auto i = static_cast<std::size_t>(r);
      const T difference = by[i] * powers[r] - less[i];
      d[r] = counts[i] != 0 ? difference : T(0);
    }
}

}  // namespace reel::detail
