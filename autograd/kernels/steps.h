#pragma once

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/shape.h>

namespace reel::kernels {

/// Which rows take part in which steps. Rows that have ended leave the computation: the rows are
/// sorted by length, so that those of a step are a prefix, and tokens are numbered step by step
/// without the padding. A token's arithmetic does not depend on the rows beside it, so the results
/// have the same bits as those of a row by itself.
class Steps {
 public:
  /// `lengths` [B] may be null: all rows have all steps.
  Steps(Index steps, Index rows, const std::int32_t* lengths);

  Index total() const { return total_; }  ///< T
  Index count() const { return std::ssize(first_) - 1; }
  Index rows() const { return rows_; }
  /// The token of the first row of step t.
  Index first(Index t) const { return first_[static_cast<std::size_t>(t)]; }
  /// How many rows take part in step t.
  Index active(Index t) const { return first(t + 1) - first(t); }
  Index tokens() const { return first_.back(); }
  /// Whether all rows have the same length, so that tokens are in the order of the batch.
  bool uniform() const { return order_.empty(); }
  /// The row of the batch.
  Index row(Index r) const { return uniform() ? r : order_[static_cast<std::size_t>(r)]; }
  /// The step that a layer processes as its s-th.
  Index time(Index s, bool reverse) const { return reverse ? count() - 1 - s : s; }
  /// The step before step t of row r; -1 if t is its first.
  Index previous(Index t, Index r, bool reverse) const {
    const Index before = reverse ? t + 1 : t - 1;
    return before < 0 || before >= count() || r >= active(before) ? -1 : before;
  }
  /// Where the batch [T, B, ..] has row r of step t.
  Index place(Index t, Index r) const { return t * rows_ + row(r); }
  /// Calls f(token, place) for every token.
  template <class F>
  void each_token(F f) const {
    for (Index t = 0; t < count(); ++t)
      for (Index r = 0; r < active(t); ++r) f(first(t) + r, place(t, r));
  }
  /// Where the rows are split into blocks of about equal work: block b has the rows from bounds[b]
  /// to bounds[b + 1].
  PoolVector<Index> blocks(Index at_most) const;

 private:
  Index total_, rows_;
  PoolVector<Index> order_, first_;
};

}  // namespace reel::kernels
