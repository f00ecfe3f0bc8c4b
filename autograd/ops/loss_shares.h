#pragma once

#include <type_traits>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops/log_sum.h>

// Shares p = softmax(x) of a row and the gradients that losses make of them, which are differences
// that cancel where one share is nearly 1.
namespace reel::detail {

/// The parts of ln Σ eˣ of each row: in memory held by the tape, or only for this call.
template <class T>
struct LogSums {
  T *largest = nullptr, *rest = nullptr;

  using Sum = LogSum<std::remove_const_t<T>>;
  Sum operator[](Index r) const { return {largest[r], rest[r]}; }
  void set(Index r, const Sum& sum) const {
    largest[r] = sum.largest;
    rest[r] = sum.rest;
  }
};

template <class T>
LogSums<T> log_sums(op::Ctx<T> c, Scratch<T>& own, Index rows) {
  if (c.recording()) return {c.out(1).data(), c.out(2).data()};
  return {own.data(), own.data() + rows};
}

template <class T>
LogSums<const T> log_sums(op::BackwardCtx<T> c) {
  return {c.out(1), c.out(2)};
}

/// d = factor · (p Σ k - k) at the largest elements of a row x with the shares p, where Σ k and 1
/// are split into the terms of those elements and of the others.
template <class T, class K>
void correct_largest(const T* x, const T* p, Index n, T largest, double factor, K k, T* d) {
  const auto sum_where = [=](bool hit, auto term) {
    return kernels::sum_of<double>(
        n, [=](Index i) { return (x[i] == largest) == hit ? static_cast<double>(term(i)) : 0.0; });
  };
  const double hits = sum_where(true, [](Index) { return 1; });
  const double hit_sum = sum_where(true, k), other_sum = sum_where(false, k);
  const double others = sum_where(false, [=](Index i) { return p[i]; });
  for (Index i = 0; i < n; ++i)
    if (x[i] == largest)
      d[i] = static_cast<T>(
          factor *
          (static_cast<double>(p[i]) * ((hit_sum - hits * k(i)) + other_sum) - k(i) * others));
}

/// Calls f(i, p) for each share p of softmax(x).
template <class T, class F>
void each_share(const T* x, Index n, LogSum<T> sum, F f) {
  if (sum.largest < std::numeric_limits<T>::infinity())
    for (Index i = 0; i < n; ++i) f(i, kernels::vexp((x[i] - sum.largest) - sum.rest));
  else
    for (Index i = 0; i < n; ++i) f(i, kernels::vexp(sum.log_share(x[i])));
}

/// d = factor · (p Σ k - k) for a row x with the shares p = softmax(x), where k(i), the
/// coefficients of -ln p, have `extra` added at the target, and the sum `total`. Where the largest
/// p are nearly all of their sum, that may be a small difference.
template <class T, class K>
void shares_minus(const T* x, Index n, LogSum<T> sum, double factor, double total, K k,
                  Index target, double extra, T* d) {
  const T largest = sum.largest, all = static_cast<T>(factor * total);
  each_share(x, n, sum, [=](Index i, T p) { d[i] = all * p - static_cast<T>(factor * k(i)); });
  d[target] -= static_cast<T>(factor * extra);
  std::int32_t hits = 0;
  for (Index i = 0; i < n; ++i) hits += x[i] == largest;
  if (static_cast<T>(hits) * kernels::vexp(-sum.rest) < T(0.5)) return;
  const Scratch<T> shares(n);
  T* const p = shares.data();
  each_share(x, n, sum, [=](Index i, T share) { p[i] = share; });
  correct_largest(
      x, p, n, largest, factor, [=](Index i) { return k(i) + (i == target ? extra : 0); }, d);
}

/// d = factor · (p - 1) at the target, factor · p elsewhere.
template <class T>
void share_minus_one(const T* x, Index n, LogSum<T> sum, double factor, Index target, T* d) {
  const T all = static_cast<T>(factor), share = sum.log_share(x[target]);
  each_share(x, n, sum, [=](Index i, T p) { d[i] = all * p; });
  // Without the cancellation where p is near 1.
  d[target] = share > T(-0.5) ? static_cast<T>(factor * kernels::vexpm1(static_cast<double>(share)))
                              : d[target] - all;
}

}  // namespace reel::detail
