#pragma once

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/matmul.h>

// The part of a cell's sums that the input makes, W x and the biases.
namespace reel::kernels {

/// Calls f(gate, sum, count) for runs of consecutive blocks of w_ih that belong to consecutive
/// sums.
template <class F>
void each_input_run(const CellLayout& layout, F f) {
  const auto sum = [&](int gate) { return layout.input[static_cast<std::size_t>(gate)]; };
  for (int gate = 0, end = 0; gate < layout.inputs; gate = end) {
    for (end = gate + 1; end < layout.inputs && sum(end) == sum(end - 1) + 1; ++end) {
    }
    f(gate, sum(gate), end - gate);
  }
}

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
