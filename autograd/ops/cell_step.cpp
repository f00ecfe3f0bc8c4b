#include <reel/autograd/cell.h>
#include <reel/autograd/ops.h>

// A step of a cell in ops, from which its specification and single steps are made.
namespace reel {

std::array<const Tensor*, 6> CellInputs::parameters() const {
  return {&w_ih, &w_hh, &b, &recurrent_bias, &numbers, &projection};
}

kernels::CellSizes CellInputs::sizes(const kernels::CellLayout& layout) const {
  const Index units = w_ih.size(0) / layout.inputs;
  return {w_ih.size(1), units, projection.defined() ? projection.size(0) : units};
}

namespace {

// Consecutive blocks of the numbers per unit.
Tensor numbers_of(const CellInputs& parameters, int begin, int count, Index n) {
  return slice(parameters.numbers, 0, begin * n, (begin + count) * n);
}

Tensor normalized(const Tensor& x, const Tensor& gain, const Tensor& bias) {
  return layer_norm(x, gain, bias.defined() ? bias : zeros(gain.shape(), gain.dtype()));
}

// Adds the terms to consecutive sums, of which each may be undefined: zero.
void add_terms(Tensors& sums, kernels::CellLayout::Range range, const Tensor& terms) {
  if (range.count == 0) return;
  const Tensors parts = split(terms, range.count, -1);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Tensor& sum = sums[static_cast<std::size_t>(range.begin) + i];
    sum = sum.defined() ? sum + parts[i] : parts[i];
  }
}

// Blocks of w_hh.
Tensor recurrent_weights(const CellInputs& parameters, int begin, int count, Index n) {
  return slice(parameters.w_hh, 0, begin * n, (begin + count) * n);
}

}  // namespace

Tensor CellInputs::input_part(const kernels::CellLayout& layout, const Tensor& x) const {
  if (layout.norm)
    return normalized(matmul(x, w_ih, false, true),
                      numbers_of(*this, layout.input_norm(), layout.inputs, sizes(layout).units),
                      b);
  return b.defined() ? affine(x, w_ih, b) : matmul(x, w_ih, false, true);
}

namespace detail {

Tensors step_sums(const kernels::CellLayout& layout, const Tensor& p, const Tensor& h,
                  const Tensors& before, const CellInputs& parameters) {
  const Index n = p.size(-1) / layout.inputs;
  Tensors sums(static_cast<std::size_t>(layout.sums));
  const int count = layout.recurrent.count;
  Tensor u;
  if (count > 0) {
    const bool all = layout.recurrent_blocks() == count;
    const Tensor w = all ? parameters.w_hh : recurrent_weights(parameters, 0, count, n);
    u = matmul(h, w, false, true);
    if (layout.norm)
      u = normalized(u, numbers_of(parameters, layout.recurrent_norm(), count, n), {});
  }
  if (count == layout.sums && layout.inputs == layout.sums) {
    sums = split(p + u, count, -1);
  } else {
    const Tensors in = split(p, layout.inputs, -1);
    for (int gate = 0; gate < layout.inputs; ++gate)
      sums[static_cast<std::size_t>(layout.input[static_cast<std::size_t>(gate)])] =
          in[static_cast<std::size_t>(gate)];
    add_terms(sums, layout.recurrent, u);
  }
  for (int i = 0; i < layout.read.count; ++i)
    add_terms(sums, layout.read_by,
              matmul(before[static_cast<std::size_t>(layout.read.begin + i)],
                     recurrent_weights(parameters, layout.read_block(i), layout.read_by.count, n),
                     false, true));
  if (parameters.recurrent_bias.defined()) {
    Tensor& sum = sums[static_cast<std::size_t>(layout.recurrent_bias)];
    sum = sum + parameters.recurrent_bias;
  }
  return sums;
}

void add_second(const kernels::CellLayout& layout, const Tensor& operand,
                const CellInputs& parameters, Tensors& sums) {
  const Index n = operand.size(-1);
  if (layout.second_is_norm) {
    sums[static_cast<std::size_t>(layout.second.begin)] =
        normalized(operand, numbers_of(parameters, layout.second_norm(), 1, n),
                   numbers_of(parameters, layout.second_norm() + 1, 1, n));
    return;
  }
  add_terms(
      sums, layout.second,
      matmul(operand, recurrent_weights(parameters, layout.recurrent.count, layout.second.count, n),
             false, true));
}

}  // namespace detail

namespace {

// The mask [B, size] of a step; undefined if there is none.
Tensor mask_of(kernels::Mask mask, const StepCall& call, Index rows, Index units, Index size,
               DType dtype) {
  return dispatch_real(dtype, [&]<class T>() {
    const kernels::Masks<T> masks(call.options, rows, units,
                                  static_cast<std::size_t>(call.direction));
    if (!masks.has(mask)) return Tensor();
    Tensor result({rows, size}, dtype);
    T* numbers = result.template begin_update<T>().data();
    for (Index row = 0; row < rows; ++row)
      masks.draw(mask, call.t, row, size, numbers + row * size);
    return result;
  });
}

}  // namespace

Tensors states_after(const CellSpec& cell, const Tensor& p, const Tensors& before,
                     const CellInputs& parameters, const StepCall& call) {
  const kernels::CellSizes sizes{0, p.size(-1) / cell.layout.inputs, before[0].size(1)};
  const DType dtype = p.dtype();
  const auto mask = [&](kernels::Mask kind, Index size) {
    return mask_of(kind, call, p.size(0), sizes.units, size, dtype);
  };
  const Tensor hidden = mask(kernels::Mask::hidden, sizes.output);
  const Tensor h = hidden.defined() ? before[0] * hidden : before[0];
  Tensors constants;
  if (cell.layout.constants > 0) {
    const Tensor update = mask(kernels::Mask::update, sizes.units);
    constants.push_back(update.defined() ? update : scalar(1, dtype));
    constants.push_back(scalar(call.options.cell_bound, dtype));
  }
  Tensors after = cell.step(p, h, before, parameters, constants);
  if (sizes.projected()) after[0] = matmul(after[0], parameters.projection, false, true);
  for (std::size_t k = 0; k < after.size(); ++k) {
    const Tensor share = mask(kernels::Masks<float>::zoneout_of(k), sizes.state(k));
    if (!share.defined()) continue;
    after[k] = call.options.training ? where(share > 0.5, before[k], after[k])
                                     : share * before[k] + (1 - share) * after[k];
  }
  return after;
}

}  // namespace reel
