#pragma once

#include <algorithm>
#include <limits>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/shape.h>

// What the ops of a linear-chain CRF share: their arguments, and sums over the label sequences of
// one row of a batch.
namespace reel::detail {

/// The arguments of the ops; crf_loss has labels in addition, before the lengths.
enum CrfInput { crf_emissions, crf_transitions, crf_begin, crf_end, crf_more };

inline constexpr double log_zero = -std::numeric_limits<double>::infinity();

template <class T>
Scratch<double> in_double(std::span<const T> x) {
  Scratch<double> copy(std::ssize(x));
  std::ranges::copy(x, copy.data());
  return copy;
}

/// The scores of a call in double, and its rows.
template <Real T>
struct CrfCall {
  Index steps, rows, labels;
  const T* emissions;
  Scratch<double> transitions, begin, end;
  const std::int32_t* lengths;  // null: all rows have all steps

  CrfCall(op::Ctx<T> c, int lengths_input)
      : steps(c.shape(crf_emissions)[0]),
        rows(c.shape(crf_emissions)[1]),
        labels(c.shape(crf_emissions)[2]),
        emissions(c.in(crf_emissions).data()),
        transitions(in_double(c.in(crf_transitions))),
        begin(in_double(c.in(crf_begin))),
        end(in_double(c.in(crf_end))),
        lengths(c.indices(lengths_input).data()) {}

  Index length(Index row) const { return lengths ? lengths[row] : steps; }
  // Where the numbers of a step of a row begin, in a tensor of the emissions' shape.
  Index at(Index t, Index row) const { return (t * rows + row) * labels; }
  const T* emission(Index t, Index row) const { return emissions + at(t, row); }
};

/// Throws ShapeError unless the first four arguments and the lengths fit.
void check_crf(const op::Arguments& in, int lengths_input);

/// Forward filtering and backward smoothing of a row. With α_t[j] = ln Σ e^s over the sequences of
/// t steps that end in j, the label before a j at step t is i with the probability
///     e^(α_(t-1)[i] + w_ij) / Σ_i of the same,
/// so the marginals of step t - 1 follow from those of step t without a sum from the other end, and
/// without a difference of large numbers.
template <Real T>
class CrfChain {
 public:
  explicit CrfChain(const CrfCall<T>& call)
      : call_(call),
        k_(call.labels),
        alpha_(call.steps * k_),
        largest_(k_),
        sums_(k_),
        shares_(k_ * k_),
        now_(k_),
        before_(k_) {}

  /// ln Σ e^s of a row of at least one step.
  double log_sum(Index row) {
    length_ = call_.length(row);
    for (Index t = 0; t < length_; ++t) {
      double* alpha = alpha_.data() + t * k_;
      if (t > 0) split(alpha - k_);
      for (Index j = 0; j < k_; ++j)
        alpha[j] = static_cast<double>(call_.emission(t, row)[j]) +
                   (t > 0 ? largest_[j] + kernels::vlog(sums_[j]) : call_.begin[j]);
    }
    const double* alpha = alpha_.data() + (length_ - 1) * k_;
    double largest = log_zero, sum = 0;
    for (Index j = 0; j < k_; ++j) now_[j] = alpha[j] + call_.end[j];
    for (Index j = 0; j < k_; ++j) largest = now_[j] > largest ? now_[j] : largest;
    for (Index j = 0; j < k_; ++j) {
      now_[j] = kernels::vexp(now_[j] - finite(largest));
      sum += now_[j];
    }
    for (Index j = 0; j < k_; ++j) now_[j] /= sum;
    return largest + kernels::vlog(sum);
  }

  /// After log_sum: calls f(t, p) from the last step to the first with the marginals p of the
  /// labels, and adds those of pairs to `pairs` [K, K] unless it is null.
  template <class F>
  void smooth(double* pairs, F f) {
    for (Index t = length_ - 1; t >= 0; --t) {
      f(t, static_cast<const double*>(now_.data()));
      if (t == 0) return;
      split(alpha_.data() + (t - 1) * k_);
      for (Index j = 0; j < k_; ++j) sums_[j] = now_[j] == 0 ? 0 : now_[j] / sums_[j];
      for (Index i = 0; i < k_; ++i) {
        const double* share = shares_.data() + i * k_;
        double sum = 0;
        for (Index j = 0; j < k_; ++j) sum += share[j] * sums_[j];
        before_[i] = sum;
        for (Index j = 0; pairs && j < k_; ++j) pairs[i * k_ + j] += share[j] * sums_[j];
      }
      std::copy_n(before_.data(), k_, now_.data());
    }
  }

 private:
  static double finite(double largest) { return largest == log_zero ? 0 : largest; }

  // shares[i, j] = e^(α_i + w_ij - largest_j), and their sums over i. A NaN is in no maximum, but
  // in the sums.
  void split(const double* alpha) {
    double* const largest = largest_.data();
    double* const sum = sums_.data();
    std::fill_n(largest, k_, log_zero);
    std::fill_n(sum, k_, 0.0);
    for (Index i = 0; i < k_; ++i) {
      const double* w = call_.transitions.data() + i * k_;
      for (Index j = 0; j < k_; ++j) {
        const double score = alpha[i] + w[j];
        largest[j] = score > largest[j] ? score : largest[j];
      }
    }
    for (Index j = 0; j < k_; ++j) largest[j] = finite(largest[j]);
    for (Index i = 0; i < k_; ++i) {
      const double* w = call_.transitions.data() + i * k_;
      double* const share = shares_.data() + i * k_;
      const double from = alpha[i];
      for (Index j = 0; j < k_; ++j) share[j] = kernels::vexp(from + w[j] - largest[j]);
      for (Index j = 0; j < k_; ++j) sum[j] += share[j];
    }
  }

  const CrfCall<T>& call_;
  Index k_, length_ = 0;
  Scratch<double> alpha_, largest_, sums_, shares_, now_, before_;
};

}  // namespace reel::detail
