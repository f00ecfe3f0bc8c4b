#pragma once

#include <algorithm>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/matmul.h>

// The part of a cell's sums that the input makes, W x and the biases.
namespace reel::kernels {

/// Calls f(block, sum) for the blocks of w_ih.
template <class F>
void each_input(const CellLayout& layout, F f) {
  for (int block = 0; block < layout.inputs; ++block)
    f(block, layout.input[static_cast<std::size_t>(block)]);
}

/// Calls f(sum, count, begin) for runs of consecutive sums with a block of w_ih. In the order of
/// the sums these blocks begin with the one numbered `begin`, and are one matrix.
template <class F>
void each_input_run(const CellLayout& layout, F f) {
  for (int sum = 0, end = 0, begin = 0; sum < layout.sums; begin += end - sum, sum = end + 1) {
    for (end = sum; end < layout.sums && layout.input_block(end) >= 0;) ++end;
    if (end > sum) f(sum, end - sum, begin);
  }
}

/// The blocks of w_ih, or of its gradient, of `size` numbers each, in the order of their sums:
/// themselves, or a copy.
template <Real T>
class OrderedBlocks {
 public:
  OrderedBlocks(const CellLayout& layout, Index size)
      : layout_(layout),
        size_(size),
        are_ordered_(std::is_sorted(layout.input.begin(), layout.input.begin() + layout.inputs)),
        copy_(are_ordered_ ? 0 : layout.inputs * size) {}

  const T* of(const T* w) const {
    each([&](T* copy, Index place) { std::copy_n(w + place, size_, copy); });
    return are_ordered_ ? w : copy_.data();
  }
  /// Where to write them, for `finish` to bring to w.
  T* place_for(T* w) const { return are_ordered_ ? w : copy_.data(); }
  void finish(T* w) const {
    each([&](const T* copy, Index place) { std::copy_n(copy, size_, w + place); });
  }

 private:
  // Calls f with the copy of a block and its place in w.
  template <class F>
  void each(F f) const {
    T* copy = copy_.data();
    for (int sum = 0; !are_ordered_ && sum < layout_.sums; ++sum)
      if (const int block = layout_.input_block(sum); block >= 0) {
        f(copy, block * size_);
        copy += size_;
      }
  }

  const CellLayout& layout_;
  Index size_;
  bool are_ordered_;
  Scratch<T> copy_;
};

/// W x and the biases of a cell's sums, with the weights packed once.
template <Real T>
class PackedInput {
 public:
  /// Refers to the cell's numbers per unit, but not to the matrix and the biases.
  PackedInput(const CellLayout& layout, const CellSizes& sizes, const Direction<T>& from);

  /// sums [tokens, sums, H] = biases + W x, split over threads(). With layer normalisation
  /// biases + gain ∘ normal(W x), over all blocks of a token; `kept` [tokens, KeptNumbers::width]
  /// gets normal(W x) and the inverse deviation. Without it `kept` is not used.
  void operator()(const T* x, Index tokens, T* sums, T* kept) const;

 private:
  struct Run {
    int sum;
    PackedMatrix<T> w;
  };
  T* bias(int sum) { return biases_.data() + sum * sizes_.units; }
  const T* bias(int sum) const { return biases_.data() + sum * sizes_.units; }
  void fill_biases(Index tokens, T* sums) const;
  void normalize(Index tokens, T* sums, T* kept) const;

  CellLayout layout_;
  CellSizes sizes_;
  KeptNumbers kept_;
  const T* numbers_;
  PoolVector<T> biases_;  // [sums, H]
  PoolVector<Run> runs_;
};

/// out [M] = the sums of the columns of d [N, M].
template <Real T>
void column_sums(MatrixView<T> d, T* out);

}  // namespace reel::kernels
