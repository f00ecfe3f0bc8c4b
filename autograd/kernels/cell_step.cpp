#include <reel/autograd/kernels/cell_step.h>

#include <algorithm>

#include <reel/autograd/kernels/row_norm.h>
#include <reel/autograd/kernels/thread_pool.h>

namespace reel::kernels {

template <Real T>
void step_product(MatrixView<T> a, const PackedMatrix<T>& w, T* c, Index ldc, Write write) {
  constexpr Index worth_a_fork = 1 << 22;  // multiplications
  if (a.rows < threads() && a.rows * a.cols * w.cols() >= worth_a_fork)
    matmul(a, w, c, ldc, write);
  else
    multiply(a, w, c, ldc, write);
}

namespace {

// Blocks of w_hh, transposed for the forward pass.
template <Real T>
MatrixView<T> blocks(const T* w_hh, const CellSizes& sizes, Index begin, Index count) {
  return MatrixView<T>::row_major(w_hh + begin * sizes.units * sizes.output, count * sizes.units,
                                  sizes.output)
      .transposed();
}

}  // namespace

template <Real T>
PackedCell<T>::PackedCell(const CellKernels<T>& cell, const CellSizes& sizes,
                          const Direction<T>& from, const StepOptions& options,
                          const Masks<T>& masks)
    : cell_(cell),
      sizes_(sizes),
      options_(options),
      masks_(masks),
      numbers_(from.numbers),
      kept_(cell.layout, sizes),
      first_(blocks(from.w_hh, sizes, 0, cell.layout.recurrent.count)),
      second_(blocks(from.w_hh, sizes, cell.layout.recurrent.count, cell.layout.second_blocks())),
      projection_(MatrixView<T>::row_major(from.projection, sizes.projected() ? sizes.output : 0,
                                           sizes.units)
                      .transposed()) {
  for (int i = 0; i < layout().read.count; ++i)
    read_.emplace_back(blocks(from.w_hh, sizes, layout().read_block(i), layout().read_by.count));
}

template <Real T>
void PackedCell<T>::step(const StepRows<T>& rows) const {
  const Index n = sizes_.units, states = layout().states;
  const bool zoneout = masks_.zoneout();
  const Scratch<T> before(zoneout ? states * rows.count * n : 0), mask(zoneout ? n : 0);
  const CellConstants<T> constants(layout(), n, options_, masks_);
  add_recurrent_product(rows);
  add_read_products(rows);
  if (layout().second.count > 0) add_second(rows, constants);
  const auto each_state = [&](auto f) {
    for (std::size_t k = 0; k < static_cast<std::size_t>(states); ++k)
      f(k, rows.states[k], before.data() + static_cast<Index>(k) * rows.count * n, sizes_.state(k));
  };
  if (zoneout)
    each_state([&](std::size_t k, const T* state, T* old, Index size) {
      std::copy_n(k == 0 ? rows.h : state, rows.count * size, old);
    });
  for (Index i = 0; i < rows.count; ++i) cell_.unit(unit_row(rows, i, constants));
  if (sizes_.projected())
    step_product(MatrixView<T>::row_major(rows.kept + kept_.unit_h, rows.count, n, kept_.width),
                 projection_, rows.states[0], sizes_.output, Write::assign);
  if (zoneout)
    each_state([&](std::size_t k, T* state, const T* old, Index size) {
      const Mask kind = Masks<T>::zoneout_of(k);
      for (Index i = 0; i < rows.count && masks_.has(kind); ++i) {
        masks_.draw(kind, rows.t, rows.row(i), size, mask.data());
        const T* share = mask.data();
        for (Index j = 0; j < size; ++j)
          state[i * size + j] = zoned_out(share[j], old[i * size + j], state[i * size + j]);
      }
    });
}

template <Real T>
void PackedCell<T>::add_recurrent_product(const StepRows<T>& rows) const {
  const auto [begin, count] = layout().recurrent;
  if (count == 0) return;
  const Index n = sizes_.units, width = layout().sums * n;
  const T* h = rows.h;
  if (masks_.has(Mask::hidden)) {
    const Index size = sizes_.output;
    for (Index i = 0; i < rows.count; ++i) {
      T* to = rows.operands + i * size;
      masks_.draw(Mask::hidden, rows.t, rows.row(i), size, to);
      for (Index j = 0; j < size; ++j) to[j] *= h[i * size + j];
    }
    h = rows.operands;
  }
  const auto operand = MatrixView<T>::row_major(h, rows.count, sizes_.output);
  if (!layout().norm)
    return step_product(operand, first_, rows.sums + begin * n, width, Write::add);
  step_product(operand, first_, rows.kept + kept_.recurrent, kept_.width, Write::assign);
  const T* of_norm = gain(layout().recurrent_norm());
  for (Index i = 0; i < rows.count; ++i) {
    T *kept = rows.kept + i * kept_.width, *sums = rows.sums + i * width + begin * n;
    T* product = kept + kept_.recurrent;
    kept[kept_.deviations + 1] = normalize_row(product, count * n);
    for (Index j = 0; j < count * n; ++j) sums[j] += of_norm[j] * product[j];
  }
}

template <Real T>
void PackedCell<T>::add_read_products(const StepRows<T>& rows) const {
  const Index n = sizes_.units;
  auto state = rows.states.begin() + layout().read.begin;
  for (const PackedMatrix<T>& w : read_)
    step_product(MatrixView<T>::row_major(*state++, rows.count, n), w,
                 rows.sums + layout().read_by.begin * n, layout().sums * n, Write::add);
}

template <Real T>
void PackedCell<T>::add_second(const StepRows<T>& rows, const CellConstants<T>& constants) const {
  const auto [begin, count] = layout().second;
  const Index n = sizes_.units, width = layout().sums * n;
  for (Index i = 0; i < rows.count; ++i) cell_.operand(unit_row(rows, i, constants));
  if (!layout().second_is_norm)
    return step_product(MatrixView<T>::row_major(rows.operands, rows.count, n), second_,
                        rows.sums + begin * n, width, Write::add);
  const T *of_norm = gain(layout().second_norm()), *bias = of_norm + n;
  for (Index i = 0; i < rows.count; ++i) {
    T *kept = rows.kept + i * kept_.width, *sum = rows.sums + i * width + begin * n;
    T* normal = std::copy_n(rows.operands + i * n, n, kept + kept_.second) - n;
    kept[kept_.deviations + (layout().norm ? 2 : 0)] = normalize_row(normal, n);
    for (Index j = 0; j < n; ++j) sum[j] = of_norm[j] * normal[j] + bias[j];
  }
}

template <Real T>
UnitRow<T> PackedCell<T>::unit_row(const StepRows<T>& rows, Index i,
                                   const CellConstants<T>& constants) const {
  const Index n = sizes_.units;
  UnitRow<T> row{n,
                 rows.sums + i * layout().sums * n,
                 rows.h + i * sizes_.output,
                 {},
                 rows.operands + i * n,
                 numbers_,
                 constants.of(rows.t, rows.row(i))};
  for (std::size_t k = 0; k < static_cast<std::size_t>(layout().states); ++k)
    row.states[k] = rows.states[k] + i * n;
  if (sizes_.projected())  // the unit has its own h, and does not read that before the step
    row.h = row.states[0] = rows.kept + i * kept_.width + kept_.unit_h;
  return row;
}

template class PackedCell<float>;
template class PackedCell<double>;
template void step_product(MatrixView<float>, const PackedMatrix<float>&, float*, Index, Write);
template void step_product(MatrixView<double>, const PackedMatrix<double>&, double*, Index, Write);

}  // namespace reel::kernels
