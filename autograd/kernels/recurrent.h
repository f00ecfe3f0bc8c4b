#pragma once

#include <array>
#include <span>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/cell_step.h>
#include <reel/autograd/kernels/input_sums.h>

// The recurrent layers: one driver for all cells, which has the steps, the rows, the products, the
// directions and the threads. T steps, B rows, D features, H units.
namespace reel::kernels {

/// What a forward pass writes for one direction.
template <Real T>
struct DirectionResults {
  T* y;                             ///< its first number in y [T, B, ..]
  std::array<T*, max_states> last;  ///< [B, H]
  // For the backward pass; null if there will be none.
  T* sums;  ///< [tokens, sums, H]
  T* kept;  ///< [tokens, KeptNumbers::width]
};

/// What a backward pass reads and writes for one direction.
template <Real T>
struct DirectionGradients {
  const T *y, *dy;                          ///< as in the results; dy may be null
  std::array<const T*, max_states> d_last;  ///< may be null
  T* sums;                                  ///< overwritten by their gradients
  const T* kept;
  // Null where not needed.
  T *dw_ih, *dw_hh, *db, *d_recurrent_bias, *d_numbers, *d_projection;
  std::array<T*, max_states> d_initial;
  double* d_h_squares = nullptr;  ///< [tokens]: |dL/dh|² after each step
};

/// A layer over a sequence x [T, B, D], in one or both directions. The tokens of y [T, B, ..] are
/// `y_stride` numbers apart.
template <Real T>
struct Recurrence {
  const CellKernels<T>& cell;
  const Steps& steps;
  CellSizes sizes;
  Index y_stride;
  const T* x;
  std::span<const Direction<T>> directions;
  const StepOptions& options;

  void forward(std::span<const DirectionResults<T>> results) const;
  /// dx may be null.
  void backward(std::span<const DirectionGradients<T>> gradients, T* dx) const;
};

}  // namespace reel::kernels
