#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <reel/autograd/kernels/broadcast.h>

// Rows scaled to n = (x - m) r, as in layer_norm and rms_norm; see ops/norm.cpp.
namespace reel::kernels {

template <class T>
struct Scale {
  using Number = T;
  T high = 0, low = 0, inverse;

  T operator()(T x) const { return ((x - high) - low) * inverse; }
  T slope(T d) const { return inverse * d; }
};

// The same for a row whose numbers are too large or too small for it: they are multiplied by a
// power of two first, in double.
struct WideScale {
  using Number = double;
  double factor, mean, inverse;

  template <class T>
  double operator()(T x) const {
    return (static_cast<double>(x) * factor - mean) * inverse;
  }
  double slope(double d) const { return inverse * d * factor; }
};

template <class F>
double mean_of(Index n, F term) {
  return sum_of<double>(n, term) / static_cast<double>(n);
}

template <bool centred, class T>
WideScale wide_scale(const T* x, Index features, double epsilon) {
  double largest = std::sqrt(epsilon);
  for (Index f = 0; f < features; ++f)
    largest = std::max(largest, std::abs(static_cast<double>(x[f])));
  const int exponent = largest > 0 ? std::clamp(-std::ilogb(largest), -1021, 1021) : 0;
  const double factor = std::isinf(largest) ? 0 : std::exp2(exponent);  // 0 ∞ is not a number
  const auto at = [=](Index f) { return static_cast<double>(x[f]) * factor; };
  const double mean = centred ? mean_of(features, at) : 0;
  const double squares =
      mean_of(features, [=](Index f) { return (at(f) - mean) * (at(f) - mean); });
  const double root = std::sqrt(epsilon) * factor;
  return {factor, mean, 1 / std::sqrt(squares + root * root)};
}

// Its inverse is 0 where the row needs a WideScale: where squares overflow or underflow in double,
// the inverse does in T, or the difference of a number and the mean, which is at most
// √features / inverse.
template <bool centred, class T>
Scale<T> scale_of(const T* x, Index features, double epsilon, double least) {
  const auto at = [x](Index i) { return static_cast<double>(x[i]); };
  const double mean = centred ? mean_of(features, at) : 0;
  const double squares =
      epsilon + mean_of(features, [&](Index i) { return (at(i) - mean) * (at(i) - mean); });
  const double inverse = 1 / std::sqrt(squares);
  const bool in_range = squares >= 1e-280 && inverse >= least &&
                        inverse <= static_cast<double>(std::numeric_limits<T>::max());
  const T high = static_cast<T>(mean);
  return {high, static_cast<T>(mean - static_cast<double>(high)),
          in_range ? static_cast<T>(inverse) : T(0)};
}

// y = n gain + bias
template <bool centred, class T, class N>
void scale_row(N n, Index features, const T* x, const T* gain, const T* bias, T* y) {
  for (Index f = 0; f < features; ++f)
    y[f] = static_cast<T>(n(x[f])) * gain[f] + (centred ? bias[f] : T(0));
}

/// A row of y = n gain + bias, without the bias if not `centred`; returns its scale.
template <bool centred, class T>
Scale<T> normalize(const T* x, Index features, double epsilon, const T* gain, const T* bias, T* y) {
  const double least =
      static_cast<double>(std::numeric_limits<T>::min()) * std::sqrt(static_cast<double>(features));
  const Scale<T> n = scale_of<centred>(x, features, epsilon, least);
  if (n.inverse != 0) [[likely]]
    scale_row<centred>(n, features, x, gain, bias, y);
  else
    scale_row<centred>(wide_scale<centred>(x, features, epsilon), features, x, gain, bias, y);
  return n;
}

}  // namespace reel::kernels
