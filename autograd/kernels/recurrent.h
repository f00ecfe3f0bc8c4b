#pragma once

#include <array>
#include <span>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/input_sums.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/steps.h>

// The recurrent layers: one driver for all cells, which has the steps, the rows, the products, the
// directions and the threads. T steps, B rows, D features, H units.
namespace reel::kernels {

/// The product of one step: c = or += a · w. With fewer rows than threads the columns of a large
/// one are split, at the cost of a fork and join per step, which a smaller one would not recover.
template <Real T>
void step_product(MatrixView<T> a, const PackedMatrix<T>& w, T* c, Index ldc, Write write);

/// The recurrent weights of a cell, packed for the products of its steps, or, transposed, for those
/// of their gradients.
template <Real T>
struct PackedCell {
  enum class Pass { forward, backward };
  PackedCell(const CellKernels<T>& kernels, const T* w_hh, Index n, Pass pass);

  /// Advances rows by one step: h [rows, H], sums and operands those of the rows; `row_at(r)` is
  /// the UnitRow of a row.
  template <class RowAt>
  void step(const T* h, Index rows, T* sums, T* operands, RowAt row_at) const {
    const Index width = cell.layout.sums * units;
    const auto add_product = [&](const T* a, const PackedMatrix<T>& w, CellLayout::Range range) {
      step_product(MatrixView<T>::row_major(a, rows, units), w, sums + range.begin * units, width,
                   Write::add);
    };
    if (cell.layout.recurrent.count > 0) add_product(h, first, cell.layout.recurrent);
    if (cell.layout.second.count > 0) {
      for (Index r = 0; r < rows; ++r) cell.operand(row_at(r));
      add_product(operands, second, cell.layout.second);
    }
    for (Index r = 0; r < rows; ++r) cell.unit(row_at(r));
  }

  const CellKernels<T>& cell;
  Index units;
  PackedMatrix<T> first, second;
};

/// The tensors of one direction. Null pointers: no bias, an initial state of zeros.
template <Real T>
struct Direction {
  bool reverse;
  const T *w_ih, *w_hh, *b, *recurrent_bias, *weights;
  std::array<const T*, max_states> initial;  ///< [B, H]
};

/// What a forward pass writes for one direction.
template <Real T>
struct DirectionResults {
  T* y;                             ///< its first number in y [T, B, ..]
  std::array<T*, max_states> last;  ///< [B, H]
  T* sums;                          ///< [tokens, sums, H]
  std::array<T*, max_states> kept;  ///< [tokens, H] of states after h; null: not needed
};

/// What a backward pass reads and writes for one direction.
template <Real T>
struct DirectionGradients {
  const T *y, *dy;                          ///< as in the results; dy may be null
  std::array<const T*, max_states> d_last;  ///< may be null
  T* sums;                                  ///< overwritten by their gradients
  std::array<const T*, max_states> kept;
  // Null where not needed.
  T *dw_ih, *dw_hh, *db, *d_recurrent_bias, *d_weights;
  std::array<T*, max_states> d_initial;
  double* d_h_squares = nullptr;  ///< [tokens]: |dL/dh|² after each step
};

/// A layer over a sequence x [T, B, D], in one or both directions. The tokens of y [T, B, ..] are
/// `y_stride` numbers apart.
template <Real T>
struct Recurrence {
  const CellKernels<T>& cell;
  const Steps& steps;
  Index features, units, y_stride;
  const T* x;
  std::span<const Direction<T>> directions;

  void forward(std::span<const DirectionResults<T>> results) const;
  /// dx may be null.
  void backward(std::span<const DirectionGradients<T>> gradients, T* dx) const;

 private:
  void input_gradient(std::span<const DirectionGradients<T>> gradients, T* dx) const;
};

}  // namespace reel::kernels
