#pragma once

#include <cmath>
#include <type_traits>

#include <reel/autograd/unit_cell.h>
#include <reel/nn/cells/recurrent.h>
#include <reel/nn/init.h>

namespace reel::nn {

/// The options of UnitCell.
struct UnitCellOptions {
  /// For the matrices and the numbers per unit; by default uniform with bound 1/√hidden_size.
  Initializer weight_init = {};
  /// For the biases; by default zeros.
  Initializer bias_init = {};
  /// `update` needs a unit that reads the mask: layout.constants of 1 or 2.
  CellDropout dropout = {};
};

/// One step of a cell of your own: U has a name, a layout and the function of a unit, as in
/// write_a_cell.cpp. Parameters, in blocks of H rows: `w_ih` [G H, D], `w_hh` [G' H, H], `b` [G H],
/// and `weights` [W H] where the unit has numbers of its own; gains of norms if the layout has
/// them. Its kernels are compiled in your
/// program, with the vector instructions of the processor that it runs on; its op has the name of
/// the cell, and is registered when the first one is made.
template <class U>
struct UnitCell
    : FusedCellCalls<UnitCell<U>,
                     std::conditional_t<U::layout.states == 1, HiddenState, LstmState>> {
  static_assert(U::layout.states <= 2, "the states of a unit cell are h, or h and c");
  using Options = UnitCellOptions;
  static constexpr const char *name = U::name, *layer_name = U::name;

  /// Throws ValueError for sizes that are not positive, or if there is another op of that name.
  UnitCell(const ModuleParams& p, Arg<Index> input_size, Arg<Index> hidden_size,
           const Options& options = {}) {
    begin_module(p, name, {{"input_size", input_size}, {"hidden_size", hidden_size}});
    fused();
    constexpr kernels::CellLayout layout = U::layout;
    detail::check_dropout(p, name, options.dropout, layout);
    const Initializer weight = options.weight_init
                                   ? options.weight_init
                                   : init::uniform(1 / std::sqrt(static_cast<double>(hidden_size)));
    w_ih = p.create("w_ih", {layout.inputs * hidden_size, input_size}, weight);
    w_hh = p.create("w_hh", {layout.recurrent_blocks() * hidden_size, hidden_size}, weight);
    b = p.create("b", {layout.inputs * hidden_size},
                 options.bias_init ? options.bias_init : init::constant(0));
    numbers = detail::create_numbers(p, layout, hidden_size, "weights", weight);
    this->dropout = options.dropout;
  }

  FusedCell fused() const {
    struct Registered {
      CellSpec spec = cell_spec<U>(U::name);
      const CellSpec* variants[1] = {&spec};
      op::RecurrentOp op{U::name,
                         variants,
                         {.states = U::layout.states == 1 ? std::vector<const char*>{"h0"}
                                                          : std::vector<const char*>{"h0", "c0"}}};
    };
    static const Registered registered;
    return {registered.spec, registered.op};
  }
  CellParams params() const { return {w_ih, w_hh, b, {}, {}, numbers}; }

  Param w_ih, w_hh, b;
  std::array<Param, 4> numbers;
};

}  // namespace reel::nn
