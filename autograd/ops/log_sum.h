#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/shape.h>

// The normaliser of softmax, shared by log_softmax, the losses and logsumexp.
namespace reel::detail {

/// x - largest, where largest is a maximum. If both are infinite it is 0, the limit.
template <class T>
T from_largest(T x, T largest) {
  return x == std::numeric_limits<T>::infinity() ? T(0) : x - largest;
}

/// ln Σ eˣ in two parts: their sum would be rounded at the magnitude of the largest number, and x -
/// ln Σ eˣ would lose those digits.
template <class T>
struct LogSum {
  T largest;
  T rest;  ///< ln Σ e^(x - largest)

  /// x - ln Σ eˣ
  T log_share(T x) const { return from_largest(x, largest) - rest; }
};

/// Contiguous numbers, in chunks that the compiler can vectorise.
template <class T>
struct Line {
  static constexpr Index chunk = 128;
  using Chunk = std::array<T, chunk>;
  const T* x;
  Index size;

  /// Calls f(i, e, n) for i = 0, chunk, ..., where e are the n elements starting at i.
  template <class F>
  void each_chunk(F f) const {
    for (Index i = 0; i < size; i += chunk) f(i, x + i, std::min(chunk, size - i));
  }
};

/// Numbers as integers in numeric order, and back; NaN is above all numbers.
template <class T>
using Ordered = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
template <class T>
constexpr Ordered<T> lowest_ordered = std::numeric_limits<Ordered<T>>::min();
template <class T>
[[gnu::always_inline]] inline Ordered<T> flipped(Ordered<T> bits) {
  return bits ^ ((bits >> (8 * sizeof(T) - 1)) & std::numeric_limits<Ordered<T>>::max());
}
template <class T>
[[gnu::always_inline]] inline Ordered<T> ordered(T x) {
  return flipped<T>(std::bit_cast<Ordered<T>>(x));
}
template <class T>
[[gnu::always_inline]] inline T from_ordered(Ordered<T> bits) {
  return std::bit_cast<T>(flipped<T>(bits));
}

/// The largest element of a line, in any order of the elements the same.
template <class T>
T largest(const Line<T>& line) {
  Ordered<T> top = lowest_ordered<T>;
  line.each_chunk([&](Index, const T* e, Index n) {
    Ordered<T> chunk_top = top;
    for (Index k = 0; k < n; ++k) chunk_top = std::max(chunk_top, ordered(e[k]));
    top = chunk_top;
  });
  return from_ordered<T>(top);
}

/// Σ e^(x - largest) of a line, in a fixed order: `hits` counts the largest elements and `others`
/// is the sum of the rest, kept apart so that it is not rounded away. The terms are stored in
/// `terms` if that is not null; it may be the line itself.
template <class T>
struct Powers {
  T largest, hits, others;

  explicit Powers(const Line<T>& line, T* terms = nullptr) {
    const T most = largest = detail::largest(line);
    const T one = kernels::vexp(from_largest(most, most));  // NaN for -∞
    Index count = 0;
    double sum = 0;
    line.each_chunk([&](Index i, const T* e, Index n) {
      typename Line<T>::Chunk powers;
      T* const power = powers.data();
      for (Index k = 0; k < n; ++k) {
        const T value = kernels::vexp(e[k] - most);
        power[k] = e[k] == most ? T(0) : value;
      }
      std::int32_t equal = 0;
      for (Index k = 0; k < n; ++k) equal += e[k] == most;
      count += equal;
      std::array<T, 8> lanes{};
      const Index filled = (n + 7) / 8 * 8;
      std::fill(power + n, power + filled, T(0));
      for (Index k = 0; k < filled; k += 8)
        for (std::size_t l = 0; l < 8; ++l) lanes[l] += power[k + static_cast<Index>(l)];
      for (Index k = 0; terms && k < n; ++k) terms[i + k] = e[k] == most ? one : power[k];
      sum += static_cast<double>(((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
                                 ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7])));
    });
    hits = static_cast<T>(count);
    others = static_cast<T>(sum);
  }
  T sum() const { return hits + others; }
  LogSum<T> log() const { return {largest, kernels::vlog1p((hits - 1) + others)}; }
};

/// The LogSum of n contiguous numbers.
template <class T>
LogSum<T> log_sum_exp(const T* x, Index n) {
  return Powers<T>(Line<T>{x, n}).log();
}

}  // namespace reel::detail
