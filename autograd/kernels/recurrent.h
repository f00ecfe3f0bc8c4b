#pragma once

#include <algorithm>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/prefetch.h>
#include <reel/autograd/kernels/thread_pool.h>

// What the kernels of the recurrent layers share. T steps, B rows, H units, G gates. One thread
// takes a block of batch rows through all steps: rows are independent, so there is one fork and
// join per layer and none per step, and no bit depends on how the rows are split. Only if the batch
// has fewer rows than threads are large products split by columns, step by step.
//
// A layer's work on one row of one step is a function that is not inlined: only pointer parameters
// keep `__restrict`, without which its loop is not vectorised.
namespace reel::kernels {

/// The order of the steps, and which rows take part in them.
struct Schedule {
  Index steps, rows;
  bool reverse;
  const std::int32_t* lengths;

  Index time(Index step) const { return reverse ? steps - 1 - step : step; }
  bool active(Index t, Index row) const { return t < lengths[row]; }
  /// The time step of the row's state before step t, or -1 for the initial state.
  Index previous(Index t, Index row) const {
    const Index before = reverse ? t + 1 : t - 1;
    return before < 0 || before >= lengths[row] ? -1 : before;
  }
  /// The row's first time step; -1 for a row of length 0.
  Index first(Index row) const { return lengths[row] == 0 ? -1 : reverse ? lengths[row] - 1 : 0; }

  /// Prefetches a row of a sequence [T, B, width] for another step, if there is such a step: long
  /// sequences do not fit in the cache, and loops backward in time are not foreseen.
  template <Real T>
  void prefetch(Index step, Index row, Index width, const T* sequence) const {
    if (step >= 0 && step < steps)
      kernels::prefetch(sequence + (time(step) * rows + row) * width, width);
  }
};

/// The state [B, H] of a row before step t: in the sequence [T, B, H], or the initial one.
template <Real T>
const T* previous_state(const Schedule& s, Index t, Index row, Index h_size, const T* sequence,
                        const T* initial) {
  const Index before = s.previous(t, row);
  return before < 0 ? initial + row * h_size : sequence + (before * s.rows + row) * h_size;
}

/// The number of blocks that the batch's rows are split into.
inline Index row_blocks(Index rows) {
  constexpr Index smallest_block = 4;
  return std::max<Index>(1, std::min<Index>(threads(), rows / smallest_block));
}

/// Calls f(begin, end) for blocks of the batch's rows, in parallel.
template <class F>
void each_row_block(Index rows, F f) {
  const Index blocks = row_blocks(rows);
  const Index size = (rows + blocks - 1) / blocks;
  parallel_for(blocks, [&](Index block) {
    const Index begin = block * size, end = std::min(rows, begin + size);
    if (begin < end) f(begin, end);
  });
}

/// The product of one step: c = or += a · w. With fewer rows than threads the columns of a large
/// one are split, at the cost of a fork and join per step, which a smaller one would not recover.
template <Real T>
void step_product(MatrixView<T> a, const PackedMatrix<T>& w, T* c, Index ldc, Write write) {
  constexpr Index worth_a_fork = 1 << 22;  // multiplications
  if (a.rows < threads() && a.rows * a.cols * w.cols() >= worth_a_fork)
    matmul(a, w, c, ldc, write);
  else
    multiply(a, w, c, ldc, write);
}

/// p [N, M] = x [N, D] · wᵀ + b, the gates' input projection for all steps at once.
template <Real T>
void input_product(const T* x, Index n, Index d, const T* w, const T* b, Index m, T* p) {
  matmul(MatrixView<T>::row_major(x, n, d), MatrixView<T>::row_major(w, m, d).transposed(), b, 0, p,
         m);
}

/// out [M] = the sums of the columns of d [N, M].
template <Real T>
void column_sums(MatrixView<T> d, T* out) {
  constexpr Index worth_a_fork = 1 << 20;  // elements
  const Index block = d.rows * d.cols < worth_a_fork ? std::max<Index>(1, d.cols) : 256;
  parallel_for((d.cols + block - 1) / block, [&](Index task) {
    const Index begin = task * block, end = std::min(d.cols, begin + block);
    sum_columns(
        d.data + begin, d.rows, end - begin, d.row_stride, [](T x, Index) { return x; },
        [&](Index c, double total) { out[begin + c] = static_cast<T>(total); });
  });
}

/// The initial gradient of a state in the backward pass: `gradient`, or zeros if none arrived.
template <Real T>
void start_gradient(const T* gradient, Index count, T* to) {
  gradient ? std::copy_n(gradient, count, to) : std::fill_n(to, count, T(0));
}

/// dh [n] += dy, or nothing if no gradient arrived.
template <Real T>
void add_gradient(const T* __restrict dy, Index n, T* __restrict dh) {
  if (dy)
    for (Index j = 0; j < n; ++j) dh[j] += dy[j];
}

/// From the gradients d [N, M] of p = x wᵀ: dx [N, D] = or += d w and dw [M, D] = dᵀ x, each only
/// if requested.
template <Real T>
void input_gradients(MatrixView<T> d, const T* x, const T* w, Index features, Write write_dx, T* dx,
                     T* dw) {
  if (dx) matmul(d, MatrixView<T>::row_major(w, d.cols, features), dx, features, write_dx);
  if (dw)
    matmul(d.transposed(), MatrixView<T>::row_major(x, d.rows, features), dw, features,
           Write::assign);
}

/// dw [M, H] = Σ over steps of dᵀ · (state before the step): d [T·B, M] with rows `stride` apart is
/// the gradient of the gates, y [T, B, H] the states after the steps.
template <Real T>
void recurrent_weight_gradient(const Schedule& s, const T* d, Index m, Index stride, const T* y,
                               const T* h0, Index h_size, T* dw) {
  // The first step of each row uses the initial state, whose values must be ignored where the row
  // has no steps ...
  Scratch<T> first(s.rows * m), initial(s.rows * h_size);
  for (Index row = 0; row < s.rows; ++row) {
    const Index t = s.first(row);
    if (t < 0) {
      std::fill_n(first.data() + row * m, m, T(0));
      std::fill_n(initial.data() + row * h_size, h_size, T(0));
    } else {
      std::copy_n(d + (t * s.rows + row) * stride, m, first.data() + row * m);
      std::copy_n(h0 + row * h_size, h_size, initial.data() + row * h_size);
    }
  }
  const auto product = [&](const T* gates, Index rows, Index gate_stride, const T* states,
                           Write write) {
    matmul(MatrixView<T>::row_major(gates, rows, m, gate_stride).transposed(),
           MatrixView<T>::row_major(states, rows, h_size), dw, h_size, write);
  };
  product(first.data(), s.rows, m, initial.data(), Write::assign);
  // ... and later steps use the output of the previous step, in one product for all. Before a row
  // begins, that output is zero.
  const Index later = (s.steps - 1) * s.rows;
  if (later <= 0) return;
  const T* gates = s.reverse ? d : d + s.rows * stride;
  const T* states = s.reverse ? y + s.rows * h_size : y;
  product(gates, later, stride, states, Write::add);
}

}  // namespace reel::kernels
