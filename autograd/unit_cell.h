#pragma once

#include <utility>

#include <reel/autograd/cell.h>
#include <reel/autograd/kernels/unit_rows.h>
#include <reel/autograd/unit.h>

/// From the text of a cell (see unit.h) to the cell.
namespace reel {

namespace detail {

/// The pre-activations of a step, without the second product.
Tensors step_sums(const kernels::CellLayout& layout, const Tensor& p, const Tensor& h,
                  const Tensors& before, const CellInputs& parameters);
/// Adds U s, or sets the sum that is s, normalised.
void add_second(const kernels::CellLayout& layout, const Tensor& operand,
                const CellInputs& parameters, Tensors& sums);

template <class T, std::size_t count>
auto as_tuple(const Tensors& tensors) {
  return [&]<std::size_t... i>(std::index_sequence<i...>) { return std::tuple(T{tensors[i]}...); }
  (std::make_index_sequence<count>{});
}

template <class C>
Tensors cell_step(const Tensor& p, const Tensor& h, const Tensors& before,
                  const CellInputs& parameters, const Tensors& given) {
  using Rows = kernels::UnitRows<C>;
  constexpr kernels::CellLayout layout = C::layout;
  Tensors sums = step_sums(layout, p, h, before, parameters);
  const auto states = as_tuple<Tensor, Rows::state_count>(before);
  const auto constants = as_tuple<Tensor, Rows::constant_count>(given);
  const auto tuple_of_sums = [&] { return as_tuple<unit::TensorSum, Rows::sum_count>(sums); };
  if constexpr (layout.second.count > 0)
    add_second(layout, kernels::operand_of<C>(tuple_of_sums(), states, constants), parameters,
               sums);
  const Tensors weights =
      layout.weights > 0 ? split(parameters.numbers, layout.numbers(), 0) : Tensors{};
  return std::apply([](const auto&... state) { return Tensors{state...}; },
                    kernels::unit_of<C>(tuple_of_sums(), states,
                                        as_tuple<Tensor, Rows::weight_count>(weights), constants));
}

template <class C>
int misused_sum() {
  const auto uses = kernels::UnitRows<C>::uses();
  for (std::size_t i = 0; i < uses.size(); ++i)
    if (uses[i].count == 0 || uses[i].ambiguous) return static_cast<int>(i);
  return -1;
}

template <class C>
kernels::GateForm form(int sum) {
  return kernels::UnitRows<C>::uses()[static_cast<std::size_t>(sum)].form;
}

}  // namespace detail

/// The cell that C describes.
template <class C>
constexpr CellSpec cell_spec(const char* name) {
  static_assert(C::layout.is_consistent(),
                "the layout of a cell speaks of sums or states that it does not have, gives two "
                "blocks of w_ih one sum, or projects an h that other products need: see "
                "kernels::CellLayout");
  return {name,
          C::layout,
          kernels::cell_kernels<C, float>(),
          kernels::cell_kernels<C, double>(),
          detail::cell_step<C>,
          detail::misused_sum<C>,
          detail::form<C>};
}

}  // namespace reel
