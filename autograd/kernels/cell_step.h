#pragma once

#include <array>

#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/masks.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/kernels/steps.h>

// One step of a cell for a block of rows: products, functions of rows, and what lies around them.
namespace reel::kernels {

/// The product of one step: c = or += a · w. With fewer rows than threads the columns of a large
/// one are split, at the cost of a fork and join per step, which a smaller one would not recover.
template <Real T>
void step_product(MatrixView<T> a, const PackedMatrix<T>& w, T* c, Index ldc, Write write);

/// The constants of a cell's function: the mask of its updates, and the bound of its state.
template <Real T>
class CellConstants {
 public:
  CellConstants(const CellLayout& layout, Index n, const StepOptions& options,
                const Masks<T>& masks)
      : masks_(masks),
        n_(n),
        drawn_(layout.constants > 0 && masks.has(Mask::update)),
        data_(layout.constants * n) {
    for (Index j = 0; j < layout.constants * n; ++j)
      data_.data()[j] = j < n ? T(1) : static_cast<T>(options.cell_bound);
  }

  /// Those of a row of the batch in step t, until the next call.
  const T* of(Index t, Index row) const {
    if (drawn_) masks_.draw(Mask::update, t, row, n_, data_.data());
    return data_.data();
  }

 private:
  const Masks<T>& masks_;
  Index n_;
  bool drawn_;
  Scratch<T> data_;
};

/// A block of rows in one step. Row i of an array is i rows further on.
template <Real T>
struct StepRows {
  const Steps* steps = nullptr;  ///< null: a single step
  Index t = 0, begin = 0, count = 0;
  T* sums = nullptr;                       ///< [count, sums, H]
  T* kept = nullptr;                       ///< [count, KeptNumbers::width]
  const T* h = nullptr;                    ///< [count, P]: before the step
  std::array<T*, max_states> states = {};  ///< [count, H], h [count, P]: on return after the step;
                                           ///< before it all but h, which may have the place of `h`
  T* operands = nullptr;                   ///< [count, H]

  /// The row of the batch.
  Index row(Index i) const { return steps ? steps->row(begin + i) : i; }
};

/// The weights of a cell, packed for the products of its steps.
template <Real T>
class PackedCell {
 public:
  /// Refers to its arguments, but not to the matrices.
  PackedCell(const CellKernels<T>& cell, const CellSizes& sizes, const Direction<T>& from,
             const StepOptions& options, const Masks<T>& masks);

  /// Advances rows by one step. Their sums hold what the input makes of them.
  void step(const StepRows<T>& rows) const;

  const CellLayout& layout() const { return cell_.layout; }
  const KeptNumbers& kept() const { return kept_; }

 private:
  void add_recurrent_product(const StepRows<T>& rows) const;
  void add_read_products(const StepRows<T>& rows) const;
  void add_second(const StepRows<T>& rows, const CellConstants<T>& constants) const;
  UnitRow<T> unit_row(const StepRows<T>& rows, Index i, const CellConstants<T>& constants) const;
  const T* gain(int norm) const { return numbers_ + norm * sizes_.units; }

  const CellKernels<T>& cell_;
  CellSizes sizes_;
  const StepOptions& options_;
  const Masks<T>& masks_;
  const T* numbers_;
  KeptNumbers kept_;
  PackedMatrix<T> first_, second_, projection_;
  PoolVector<PackedMatrix<T>> read_;
};

}  // namespace reel::kernels
