#pragma once

#include <algorithm>
#include <array>

#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/steps.h>
#include <reel/autograd/kernels/thread_pool.h>

// How the passes of the recurrent layers walk over a batch.
namespace reel::kernels {

/// A sequence [T, B, width] by tokens: the sequence itself, or a copy without the padding.
template <Real T>
class Tokens {
 public:
  Tokens(const Steps& steps, const T* sequence, Index width)
      : copy_(steps.uniform() ? 0 : steps.tokens() * width),
        data_(steps.uniform() ? sequence : copy_.data()) {
    if (!steps.uniform())
      steps.each_token([&](Index token, Index place) {
        std::copy_n(sequence + place * width, width, copy_.data() + token * width);
      });
  }
  const T* data() const { return data_; }

 private:
  Scratch<T> copy_;
  const T* data_;
};

/// Calls f(place) for every step of a row that is padding.
template <class F>
void each_padding(const Steps& steps, F f) {
  for (Index t = 0; t < steps.total(); ++t)
    for (Index r = t < steps.count() ? steps.active(t) : 0; r < steps.rows(); ++r)
      f(steps.place(t, r));
}

/// Calls f(direction, begin, end) for blocks of rows in each direction, in parallel: rows are
/// independent, so there is one fork and join for the layer and none for its steps, and no bit
/// depends on how the rows are split. Only if the batch has fewer rows than threads are large
/// products split by columns, step by step.
template <class F>
void each_row_block(const Steps& steps, std::size_t directions, F f) {
  const PoolVector<Index> bounds = steps.blocks(threads());
  const Index blocks = std::ssize(bounds) - 1;
  parallel_for(static_cast<Index>(directions) * blocks, [&](Index task) {
    const auto block = static_cast<std::size_t>(task % blocks);
    if (bounds[block] < bounds[block + 1])
      f(static_cast<std::size_t>(task / blocks), bounds[block], bounds[block + 1]);
  });
}

/// States [B, H] of all directions, or their gradients, with the rows in the order of the steps.
template <Real T>
class SortedStates {
 public:
  SortedStates(const Steps& steps, const CellLayout& layout, const CellSizes& sizes,
               std::size_t directions)
      : steps_(steps),
        count_(static_cast<std::size_t>(layout.states)),
        sizes_(sizes),
        data_(static_cast<Index>(directions * count_) * steps.rows() * sizes.units) {}

  T* operator()(std::size_t direction, std::size_t k) const {
    return data_.data() + static_cast<Index>(direction * count_ + k) * steps_.rows() * sizes_.units;
  }
  // Zeros where there is no state.
  void load(std::size_t direction, const std::array<const T*, max_states>& from) const {
    for (std::size_t k = 0; k < count_; ++k)
      for (Index r = 0; r < steps_.rows(); ++r) {
        const Index size = sizes_.state(k);
        T* to = (*this)(direction, k) + r * size;
        from[k] ? std::copy_n(from[k] + steps_.row(r) * size, size, to)
                : std::fill_n(to, size, T(0));
      }
  }
  // Where `to` is not null.
  void store(std::size_t direction, const std::array<T*, max_states>& to) const {
    for (std::size_t k = 0; k < count_; ++k)
      for (Index r = 0; to[k] && r < steps_.rows(); ++r)
        std::copy_n((*this)(direction, k) + r * sizes_.state(k), sizes_.state(k),
                    to[k] + steps_.row(r) * sizes_.state(k));
  }

 private:
  const Steps& steps_;
  std::size_t count_;
  CellSizes sizes_;
  Scratch<T> data_;
};

}  // namespace reel::kernels
