#include <reel/autograd/kernels/row_cell.h>

#include <algorithm>

#include <reel/autograd/kernels/input_sums.h>
#include <reel/autograd/kernels/row_norm.h>

namespace reel::kernels {
namespace {

// `count` rows of `size` numbers, each `width` wide.
template <class Numbers, Real T>
void copy_rows(const T* from, Index count, Index size, Index width, Numbers& to) {
  for (Index i = 0; from && i < count; ++i)
    std::copy_n(from + i * size, size, to.data() + i * width);
}

}  // namespace

template <Real T>
RowCell<T>::RowCell(const CellKernels<T>& cell, const CellSizes& sizes, const Direction<T>& from,
                    const StepOptions& options, MemoryPlan& plan)
    : cell_(cell),
      sizes_(sizes),
      // A norm is over the blocks of all gates, between which there may be nothing.
      n_(cell.layout.norm || cell.layout.second_is_norm ? sizes.units
                                                        : whole_vectors<T>(sizes.units)),
      is_whole_(n_ == whole_vectors<T>(n_)),
      zoneout_{static_cast<T>(options.zoneout_h), static_cast<T>(options.zoneout_c)} {
  copy_numbers(from, options.cell_bound);
  pack_input(from);
  pack_recurrent(from);
  this->plan(plan);
}

template <Real T>
void RowCell<T>::copy_numbers(const Direction<T>& from, double cell_bound) {
  const Index size = sizes_.units;
  numbers_.resize(static_cast<std::size_t>(layout().numbers() * n_));
  copy_rows(from.numbers, layout().numbers(), size, n_, numbers_);
  constants_.assign(static_cast<std::size_t>(layout().constants * n_), T(1));
  if (layout().constants > 1)
    std::fill(constants_.begin() + n_, constants_.end(), static_cast<T>(cell_bound));
  biases_.resize(static_cast<std::size_t>(layout().sums * n_));
  each_input(layout(), [&](int block, int sum) {
    if (from.b) std::copy_n(from.b + block * size, size, biases_.data() + sum * n_);
  });
  for (Index j = 0; from.recurrent_bias && j < size; ++j)
    biases_[static_cast<std::size_t>(layout().recurrent_bias * n_ + j)] += from.recurrent_bias[j];
}

template <Real T>
typename RowCell<T>::Product RowCell<T>::blocks(const T* w, Index depth, int sum, int count) const {
  const auto rows = MatrixView<T>::row_major(w, count * sizes_.units, depth);
  return {sum, count, RowProduct<T>(rows.transposed(), count, n_)};
}

template <Real T>
void RowCell<T>::pack_input(const Direction<T>& from) {
  const Index depth = sizes_.features, block = sizes_.units * depth;
  if (layout().norm) {
    input_.push_back(blocks(from.w_ih, depth, 0, layout().inputs));
    return;
  }
  const OrderedBlocks<T> ordered(layout(), block);
  const T* const w = ordered.of(from.w_ih);
  each_input_run(layout(), [&](int sum, int count, int begin) {
    input_.push_back(blocks(w + begin * block, depth, sum, count));
  });
}

template <Real T>
void RowCell<T>::pack_recurrent(const Direction<T>& from) {
  const Index depth = sizes_.output;
  const auto pack = [&](std::vector<Product>& to, int begin, CellLayout::Range sums) {
    if (sums.count > 0)
      to.push_back(blocks(from.w_hh + begin * sizes_.units * depth, depth, sums.begin, sums.count));
  };
  pack(recurrent_, 0, layout().recurrent);
  if (!layout().second_is_norm) pack(second_, layout().recurrent.count, layout().second);
  for (int i = 0; i < layout().read.count; ++i)
    pack(read_, layout().read_block(i), layout().read_by);
  if (sizes_.projected())
    projection_.emplace(
        MatrixView<T>::row_major(from.projection, depth, sizes_.units).transposed());
}

template <Real T>
void RowCell<T>::plan(MemoryPlan& plan) {
  for (std::size_t k = 0; k < static_cast<std::size_t>(layout().states); ++k) {
    const Index width = k == 0 && projection_ ? projection_->width() : whole_vectors<T>(n_);
    places_.states[k] = plan.take(width);
    places_.before[k] = has_zoneout() ? plan.take(width) : 0;
  }
  const Index sums = whole_vectors<T>(layout().sums * n_);
  places_.sums = plan.take(sums);
  places_.product = plan.take(sums);
  places_.turn = plan.take(1);
  places_.operand = plan.take(whole_vectors<T>(n_));
  places_.unit_h = projection_ ? plan.take(whole_vectors<T>(n_)) : places_.states[0];
}

// sums = start + W x, where there may be no room beyond them for whole vectors.
template <Real T>
void RowCell<T>::multiply(const Product& product, const T* x, const T* start,
                          T* memory) const noexcept {
  T *const sums = memory + places_.sums + product.sum * n_, *const aside = memory + places_.product;
  const auto order = memory[places_.turn] == 0 ? Order::forward : Order::backward;
  if (is_whole_) return product.w(x, start, sums, order);
  std::copy_n(start, product.count * n_, aside);
  product.w(x, aside, aside, order);
  std::copy_n(aside, product.count * n_, sums);
}

template <Real T>
void RowCell<T>::add(const Product& product, const T* x, T* memory) const noexcept {
  multiply(product, x, memory + places_.sums + product.sum * n_, memory);
}

// normal(W x), over all blocks.
template <Real T>
const T* RowCell<T>::normalized(const Product& product, const T* x, T* memory) const noexcept {
  T* const aside = memory + places_.product;
  product.w(x, nullptr, aside);
  normalize_row(aside, product.count * n_);
  return aside;
}

// sums = biases + W x
template <Real T>
void RowCell<T>::set_input(const T* x, T* memory) const noexcept {
  T* const sums = memory + places_.sums;
  if (layout().norm || layout().inputs < layout().sums)
    std::copy_n(biases_.data(), layout().sums * n_, sums);
  if (!layout().norm) {
    for (const Product& product : input_)
      multiply(product, x, biases_.data() + product.sum * n_, memory);
    return;
  }
  const T *const product = normalized(input_[0], x, memory), *of_norm = gain(layout().input_norm());
  each_input(layout(), [&](int block, int sum) {
    for (Index j = 0; j < n_; ++j)
      sums[sum * n_ + j] += of_norm[block * n_ + j] * product[block * n_ + j];
  });
}

template <Real T>
void RowCell<T>::add_recurrent(T* memory) const noexcept {
  const T* const h = memory + state(0);
  for (const Product& product : recurrent_) {
    if (!layout().norm) {
      add(product, h, memory);
      continue;
    }
    const T *const normal = normalized(product, h, memory),
                   *of_norm = gain(layout().recurrent_norm());
    T* const sums = memory + places_.sums + product.sum * n_;
    for (Index j = 0; j < product.count * n_; ++j) sums[j] += of_norm[j] * normal[j];
  }
  for (std::size_t i = 0; i < read_.size(); ++i)
    add(read_[i], memory + state(static_cast<std::size_t>(layout().read.begin) + i), memory);
}

template <Real T>
void RowCell<T>::add_second(const UnitRow<T>& row, T* memory) const noexcept {
  cell_.operand(row);
  if (!layout().second_is_norm) return add(second_[0], row.operand, memory);
  normalize_row(row.operand, n_);
  const T *const of_norm = gain(layout().second_norm()), *const bias = of_norm + n_;
  T* const sum = row.sums + layout().second.begin * n_;
  for (Index j = 0; j < n_; ++j) sum[j] = of_norm[j] * row.operand[j] + bias[j];
}

template <Real T>
UnitRow<T> RowCell<T>::unit_row(T* memory) const noexcept {
  UnitRow<T> row{n_,
                 memory + places_.sums,
                 memory + places_.unit_h,
                 {},
                 memory + places_.operand,
                 numbers_.data(),
                 constants_.data()};
  for (std::size_t k = 0; k < static_cast<std::size_t>(layout().states); ++k)
    row.states[k] = memory + state(k);
  row.states[0] = memory + places_.unit_h;
  return row;
}

// Calls f(state, before, size, share) for each state that zoneout mixes.
template <Real T>
template <class F>
void RowCell<T>::each_mixed(T* memory, F f) const noexcept {
  for (std::size_t k = 0; has_zoneout() && k < static_cast<std::size_t>(layout().states); ++k)
    f(memory + state(k), memory + places_.before[k], sizes_.state(k), zoneout_[k == 0 ? 0 : 1]);
}

// Flat, since what a small layer needs besides arithmetic is a part of its time that counts.
template <Real T>
[[gnu::flatten]] void RowCell<T>::step(const T* x, T* memory) const noexcept {
  memory[places_.turn] = 1 - memory[places_.turn];
  const UnitRow<T> row = unit_row(memory);
  set_input(x, memory);
  add_recurrent(memory);
  if (layout().second.count > 0) add_second(row, memory);
  each_mixed(memory,
             [](const T* state, T* before, Index size, T) { std::copy_n(state, size, before); });
  cell_.unit(row);
  if (projection_) (*projection_)(memory + places_.unit_h, nullptr, memory + state(0));
  each_mixed(memory, [](T* state, const T* before, Index size, T share) {
    for (Index j = 0; j < size; ++j) state[j] = zoned_out(share, before[j], state[j]);
  });
}

template class RowCell<float>;
template class RowCell<double>;

}  // namespace reel::kernels
