#pragma once

#include <optional>
#include <vector>

#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/masks.h>
#include <reel/autograd/kernels/row_product.h>

// A cell for a single row, step by step: what cell_step.h and input_sums.h do for many rows, with
// the same bits, in memory that is planned beforehand.
namespace reel::kernels {

/// Places in a block of memory, each aligned to a cache line, and how large the block has to be.
class MemoryPlan {
 public:
  explicit MemoryPlan(Index number_bytes) : line_(64 / number_bytes) {}

  /// The place of this many numbers.
  Index take(Index count) {
    const Index place = size_;
    size_ += ceil_div(count, line_) * line_;
    return place;
  }
  Index size() const { return size_; }

 private:
  Index line_, size_ = 0;
};

/// A cell with its packed weights; its states and sums are in the caller's memory. Rows of H
/// numbers are H rounded up to whole vectors wide: what is computed beyond H is not read.
template <Real T>
class RowCell {
 public:
  /// Takes places for the states and for what a step needs. Refers to the kernels alone. Throws
  /// MemoryError.
  RowCell(const CellKernels<T>& cell, const CellSizes& sizes, const Direction<T>& from,
          const StepOptions& options, MemoryPlan& plan);

  /// Advances the states by one step with the input x [D].
  void step(const T* x, T* memory) const noexcept;

  /// The place of state k.
  Index state(std::size_t k) const { return places_.states[k]; }
  const CellSizes& sizes() const { return sizes_; }

 private:
  using Numbers = PoolVector<T>;
  /// What is added to `count` sums from `sum` on.
  struct Product {
    int sum, count;
    RowProduct<T> w;
  };
  struct Places {
    std::array<Index, max_states> states, before;
    Index sums, product, operand, unit_h, turn;
  };

  const CellLayout& layout() const { return cell_.layout; }
  void copy_numbers(const Direction<T>& from, double cell_bound);
  void pack_input(const Direction<T>& from);
  void pack_recurrent(const Direction<T>& from);
  Product blocks(const T* w, Index depth, int sum, int count) const;
  void plan(MemoryPlan& plan);

  void set_input(const T* x, T* memory) const noexcept;
  void add_recurrent(T* memory) const noexcept;
  void add_second(const UnitRow<T>& row, T* memory) const noexcept;
  void multiply(const Product& product, const T* x, const T* start, T* memory) const noexcept;
  void add(const Product& product, const T* x, T* memory) const noexcept;
  const T* normalized(const Product& product, const T* x, T* memory) const noexcept;
  UnitRow<T> unit_row(T* memory) const noexcept;
  template <class F>
  void each_mixed(T* memory, F f) const noexcept;
  bool has_zoneout() const { return zoneout_ != std::array<T, 2>{}; }
  const T* gain(int norm) const { return numbers_.data() + norm * n_; }

  const CellKernels<T>& cell_;
  CellSizes sizes_;
  Index n_;                   // the width of a row of H numbers
  bool is_whole_;             // whether it is whole vectors
  std::array<T, 2> zoneout_;  // the shares of the old h and of the other old states
  Numbers biases_, numbers_, constants_;
  std::vector<Product> input_, recurrent_, second_, read_;
  std::optional<RowProduct<T>> projection_;
  Places places_;
};

}  // namespace reel::kernels
