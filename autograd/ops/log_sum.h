#pragma once

#include <algorithm>
#include <array>
#include <limits>

#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/shape.h>

// The normaliser of softmax, which its logarithm, the losses and logsumexp share.
namespace reel::detail {

/// x - largest, for the largest of several numbers. Where both are infinite it is 0, the limit.
template <class T>
T from_largest(T x, T largest) {
  return x == std::numeric_limits<T>::infinity() ? T(0) : x - largest;
}

/// ln Σ eˣ in two parts: the sum of both would be rounded at the size of the largest number, and
/// what is left of it in x - ln Σ eˣ with it.
template <class T>
struct LogSum {
  T largest;
  T rest;  ///< ln Σ e^(x - largest)

  /// x - ln Σ eˣ
  T log_share(T x) const { return from_largest(x, largest) - rest; }
};

/// Of a sum that consists of `hits` times 1, for those that are the largest, and of the others.
template <class T>
T log_of_sum(T hits, T others) {
  return kernels::vlog1p((hits - 1) + others);
}

/// The LogSum of n numbers in a row. Those that are the largest are counted and not added, so that
/// beside them small ones are not lost.
template <class T>
LogSum<T> log_sum_exp(const T* x, Index n) {
  constexpr Index lanes = 8, block = 1024;  // sums are in a fixed order, whatever the numbers
  std::array<T, lanes> top;
  top.fill(x[0]);
  const auto each = [](Index begin, Index end, auto f) {
    Index i = begin;
    for (; i + lanes <= end; i += lanes)
      for (Index l = 0; l < lanes; ++l) f(static_cast<std::size_t>(l), i + l);
    for (Index l = 0; i < end; ++i, ++l) f(static_cast<std::size_t>(l), i);
  };
  each(0, n, [&](std::size_t l, Index i) { top[l] = x[i] > top[l] ? x[i] : top[l]; });
  const T largest = *std::max_element(top.begin(), top.end());
  double others = 0, hits = 0;
  for (Index begin = 0; begin < n; begin += block) {
    std::array<T, lanes> sums{}, counts{};
    each(begin, std::min(n, begin + block), [&](std::size_t l, Index i) {
      const T power = kernels::vexp(x[i] - largest);
      sums[l] += x[i] == largest ? T(0) : power;
      counts[l] += x[i] == largest ? T(1) : T(0);
    });
    const auto total = [](const std::array<T, lanes>& a) {
      return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
    };
    others += static_cast<double>(total(sums));
    hits += static_cast<double>(total(counts));
  }
  return {largest, log_of_sum(static_cast<T>(hits), static_cast<T>(others))};
}

}  // namespace reel::detail
