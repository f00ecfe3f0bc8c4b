#pragma once

#include <deque>

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

/// The biases of all sums [sums, H], from b [inputs, H] and the bias of the recurrent product,
/// either of which may be null.
template <Real T>
void sum_biases(const CellLayout& layout, Index n, const T* b, const T* recurrent_bias, T* biases);

/// Sets the sums of some tokens to which no W x belongs to their biases.
template <Real T>
void fill_biases(const CellLayout& layout, Index n, Index tokens, const T* biases, T* sums);

/// sums [tokens, sums, H] = biases + W x, where W x belongs to them.
template <Real T>
void input_sums(const CellLayout& layout, Index n, const T* x, Index tokens, Index features,
                const T* w_ih, const T* biases, T* sums);

/// sums = biases + gain ∘ normal(W x), over all blocks of a row. Row i of the products W x, which
/// are normalised in place, and of their inverse deviations is i · stride further on.
template <Real T>
void normalized_input_sums(const CellLayout& layout, Index n, Index rows, T* products, T* inverses,
                           Index stride, const T* gain, const T* biases, T* sums);

/// W x and the biases, for single steps: input_sums with the weights packed once.
template <Real T>
class PackedInput {
 public:
  /// `biases` are those of sum_biases, `numbers` the parameters per unit; the latter are not
  /// copied.
  PackedInput(const CellLayout& layout, Index n, const T* w_ih, Index features,
              PoolVector<T> biases, const T* numbers);
  /// sums [rows, sums, H] = biases + W x.
  void operator()(const T* x, Index rows, T* sums) const;

 private:
  struct Run {
    Run(int first_sum, MatrixView<T> view) : sum(first_sum), w(view) {}
    int sum;
    PackedMatrix<T> w;
  };
  CellLayout layout_;
  Index n_, features_;
  PoolVector<T> biases_;
  const T* numbers_;
  std::deque<Run> runs_;  // which cannot be moved
};

/// out [M] = the sums of the columns of d [N, M].
template <Real T>
void column_sums(MatrixView<T> d, T* out);

}  // namespace reel::kernels
