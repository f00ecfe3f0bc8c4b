#pragma once

#include <cmath>

#include <reel/autograd/kernels/broadcast.h>

// Layer normalisation of a row (Ba et al., 2016), for the recurrent layers.
namespace reel::kernels {

inline constexpr double norm_epsilon = 1e-5;

/// x = (x - mean) / √(variance + ε) in place; returns the factor.
template <Real T>
T normalize_row(T* x, Index n) {
  const auto count = static_cast<double>(n);
  const auto at = [x](Index i) { return static_cast<double>(x[i]); };
  const double mean = sum_of<double>(n, at) / count;
  const double variance =
      sum_of<double>(n, [&](Index i) { return (at(i) - mean) * (at(i) - mean); }) / count;
  const double inverse = 1 / std::sqrt(variance + norm_epsilon);
  for (Index i = 0; i < n; ++i) x[i] = static_cast<T>((at(i) - mean) * inverse);
  return static_cast<T>(inverse);
}

/// From the gradient of the normalised row to that of the row, in place:
/// d = (d - mean(d) - normal ∘ mean(d ∘ normal)) · inverse.
template <Real T>
void normalize_row_gradient(const T* normal, T inverse, Index n, T* d) {
  const auto count = static_cast<double>(n);
  const auto mean =
      static_cast<T>(sum_of<double>(n, [&](Index i) { return static_cast<double>(d[i]); }) / count);
  const auto along = static_cast<T>(
      sum_of<double>(n, [&](Index i) { return static_cast<double>(d[i]) * normal[i]; }) / count);
  for (Index i = 0; i < n; ++i) d[i] = (d[i] - mean - normal[i] * along) * inverse;
}

}  // namespace reel::kernels
