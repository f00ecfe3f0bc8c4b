#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include <reel/autograd/ops.h>
#include <reel/autograd/ops/loss_shares.h>
#include <reel/autograd/ops/loss_terms.h>

// Losses with classes as targets, row by row: for nll, cross_entropy and linear_cross_entropy.
namespace reel::detail {

/// The weight that a mean divides by; 1 for a sum.
inline double divisor(const char* op, LossReduction reduction, double weight) {
  if (reduction == LossReduction::sum) return 1;
  if (weight == 0)
    throw ValueError(
        fmt::format("{}: there is nothing to average: the weights that count sum to 0", op));
  return weight;
}

/// Throws ValueError, naming the call, unless the smoothing is between 0 and 1.
inline void check_smoothing(const char* op, double smoothing, Site site) {
  if (!(smoothing >= 0 && smoothing <= 1))
    throw ValueError(
        fmt::format("{}: the label smoothing must be in [0, 1], not {}", op, smoothing), site);
}

/// Weights of a call; they are 1 if they were not given.
template <class T>
struct Weights {
  const T* given;

  double operator[](Index i) const { return given ? static_cast<double>(given[i]) : 1; }
  double sum(Index count) const {
    return given ? std::accumulate(given, given + count, 0.0) : static_cast<double>(count);
  }
};

/// Calls f(w), where w(i) is weight i without a branch, for loops over elements.
template <class T, class F>
void with_function_of(const Weights<T>& weights, F f) {
  if (const T* given = weights.given)
    f([given](Index i) { return static_cast<double>(given[i]); });
  else
    f([](Index) { return 1.0; });
}

struct ClassTargets {
  double smoothing = 0;
  std::int32_t ignored = 0;
  bool ignores = false;
  LossReduction reduction = LossReduction::mean;

  std::optional<std::int32_t> exempt() const {
    return ignores ? std::optional(ignored) : std::nullopt;
  }
};

/// A call of nll, where x are log-probabilities ℓ, or of cross_entropy, where ℓ = x - ln Σ eˣ. With
/// position weights p, class weights c and smoothing e, a row with target y has the loss
///     l = (1 - e) c[y] (-ℓ[y]) + e / V Σ c (-ℓ),
/// and the result is Σ p l, divided by Σ p c[y] for a mean. Terms with a factor of 0 are skipped.
template <class T>
struct ClassRows {
  const T* x;
  Weights<T> weights, class_weights;
  LogSums<const T> sums;  // none for log-probabilities
  const std::int32_t* targets;
  Index rows, classes;
  ClassTargets attr;

  bool ignored(Index r) const { return attr.ignores && targets[r] == attr.ignored; }
  double weight(Index r) const { return ignored(r) ? 0 : weights[r]; }
  double class_weight(Index i) const { return class_weights[i]; }
  double total_weight() const {
    double sum = 0;
    for (Index r = 0; r < rows; ++r)
      if (!ignored(r)) sum += weight(r) * class_weight(targets[r]);
    return sum;
  }
  // -ℓ
  double surprise(Index r, Index i) const {
    const auto value = static_cast<double>(x[r * classes + i]);
    if (!sums.largest) return -value;
    return -LogSum<double>{static_cast<double>(sums.largest[r]), static_cast<double>(sums.rest[r])}
                .log_share(value);
  }
  double hard_share() const { return 1 - attr.smoothing; }
  double smooth_share() const { return attr.smoothing / static_cast<double>(classes); }
  double loss(Index r) const {
    const Index target = targets[r];
    double sum =
        unless_zero(hard_share() * class_weight(target), [&] { return surprise(r, target); });
    for (Index i = 0; attr.smoothing != 0 && i < classes; ++i)
      sum += unless_zero(smooth_share() * class_weight(i), [&] { return surprise(r, i); });
    return sum;
  }
  /// d = factor · dl/dx of a row of logits, where `class_sum` is Σ c.
  void logits_gradient(Index r, double factor, double class_sum, T* d) const {
    if (factor == 0) {
      std::fill_n(d, classes, T(0));
      return;
    }
    const T* row = x + r * classes;
    const LogSum<T> sum{sums.largest[r], sums.rest[r]};
    const Index target = targets[r];
    const double smooth = smooth_share(), hard = hard_share() * class_weight(target);
    if (attr.smoothing == 0) return share_minus_one(row, classes, sum, factor * hard, target, d);
    with_function_of(class_weights, [&](auto weight_of) {
      shares_minus(
          row, classes, sum, factor, smooth * class_sum + hard,
          [=](Index i) { return smooth * weight_of(i); }, target, hard, d);
    });
  }
};

}  // namespace reel::detail
