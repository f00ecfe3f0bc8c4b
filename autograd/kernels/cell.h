#pragma once

#include <array>

#include <reel/autograd/dtype.h>
#include <reel/autograd/shape.h>

// What the driver of the recurrent layers (recurrent.h) knows of a cell: constants, which say how
// its products are laid out, and functions of one row. T steps, B rows, D features, H units.
namespace reel::kernels {

inline constexpr int max_sums = 8, max_states = 5;

/// What a pre-activation keeps for the backward pass: itself, or the gate that it went through.
enum class GateForm { number, sigmoid, tanh };

/// How a cell's numbers are laid out. A token, one row of one step, has `sums` blocks of H
/// pre-activations: products and biases that the cell's functions then read. The first state is h,
/// the output and the operand of the recurrent product.
struct CellLayout {
  /// Consecutive sums.
  struct Range {
    int begin, count;
  };
  int sums;
  int states;
  /// Numbers per unit, the same at all tokens, such as peepholes.
  int weights = 0;
  /// Numbers per unit that a call gives: first the mask of the dropout of updates, then the bound
  /// of the cell state.
  int constants = 0;
  /// Block g of w_ih and of b belongs to sum input[g].
  int inputs = sums;
  std::array<int, max_sums> input = {0, 1, 2, 3, 4, 5, 6, 7};
  /// The sums to which U h is added, and those to which U s is, where s is what the cell's function
  /// `operand` returns; in the order of the blocks of w_hh.
  Range recurrent = {0, sums};
  Range second = {0, 0};
  /// States beside h that are operands too, each of a product that is added to the sums `read_by`;
  /// their blocks of w_hh follow the others, those of one state after another.
  Range read = {0, 0}, read_by = {0, 0};
  /// Layer normalisation of W x and U h, each over all of its blocks and with gains of its own.
  bool norm = false;
  /// The second product is none: its sum is the operand, normalised, with a gain and a bias.
  bool second_is_norm = false;
  /// Whether h may be projected: the cell's function does not read it.
  bool projects = false;
  /// The sum with a second bias, added to the recurrent product; -1: none.
  int recurrent_bias = -1;
  /// For reports: the names of the gates, by their sums, and the gate that the old state is
  /// multiplied by, directly or (with `forget_is_complement`) as 1 - gate; -1: none.
  std::array<const char*, max_sums> gates = {};
  int forget = -1;
  bool forget_is_complement = false;

  constexpr int second_blocks() const { return second_is_norm ? 0 : second.count; }
  /// Where in w_hh the blocks for the i-th of the states `read` begin.
  constexpr int read_block(int i) const {
    return recurrent.count + second_blocks() + i * read_by.count;
  }
  constexpr int recurrent_blocks() const { return read_block(read.count); }
  /// The block of w_ih that belongs to a sum; -1: none.
  constexpr int input_block(int sum) const {
    int block = 0;
    while (block < inputs && input[static_cast<std::size_t>(block)] != sum) ++block;
    return block < inputs ? block : -1;
  }
  /// Whether there are as many states and sums as are used, no two blocks of w_ih belong to one
  /// sum, and h, which may be narrower where it is projected, is not needed in full.
  constexpr bool is_consistent() const {
    const auto within = [](Range range, int count) {
      return range.begin >= 0 && range.count >= 0 && range.begin + range.count <= count;
    };
    if (sums < 1 || sums > max_sums || inputs < 1 || inputs > sums) return false;
    int sums_with_block = 0;
    for (int sum = 0; sum < sums; ++sum) sums_with_block += input_block(sum) >= 0 ? 1 : 0;
    return sums_with_block == inputs && states >= 1 && states <= max_states &&
           within(recurrent, sums) && within(second, sums) && within(read_by, sums) &&
           within(read, states) && (read.count == 0 || read.begin > 0) &&
           !(projects && recurrent_blocks() > recurrent.count);
  }
  /// Numbers per unit that are parameters: the weights, and the gains and biases of the norms of
  /// W x, of U h and of the operand.
  constexpr int numbers() const { return second_norm() + (second_is_norm ? 2 : 0); }
  constexpr int input_norm() const { return weights; }
  constexpr int recurrent_norm() const { return weights + (norm ? inputs : 0); }
  constexpr int second_norm() const { return recurrent_norm() + (norm ? recurrent.count : 0); }
};

/// The sizes of a layer: D, H, and P, the size of h, which is less than H with a projection.
struct CellSizes {
  Index features, units, output;

  Index state(std::size_t k) const { return k == 0 ? output : units; }
  bool projected() const { return output < units; }
};

/// What a token keeps for the backward pass beside its sums, one after another: the states after
/// it but h, the unit's h before the projection, the normalised products, and their inverse
/// deviations.
struct KeptNumbers {
  Index unit_h, input, recurrent, second, deviations, width;

  KeptNumbers(const CellLayout& layout, const CellSizes& sizes)
      : unit_h((layout.states - 1) * sizes.units),
        input(unit_h + (sizes.projected() ? sizes.units : 0)),
        recurrent(input + (layout.norm ? layout.inputs * sizes.units : 0)),
        second(recurrent + (layout.norm ? layout.recurrent.count * sizes.units : 0)),
        deviations(second + (layout.second_is_norm ? sizes.units : 0)),
        width(deviations + (layout.norm ? 2 : 0) + (layout.second_is_norm ? 1 : 0)) {}
};

/// The tensors of one direction. Null pointers: no bias, no projection, an initial state of zeros.
template <Real T>
struct Direction {
  bool reverse;
  const T *w_ih, *w_hh, *b, *recurrent_bias, *numbers, *projection;
  std::array<const T*, max_states> initial;  ///< [B, H]
};

/// One token, for the functions of a forward pass.
template <Real T>
struct UnitRow {
  Index n;                            ///< H
  T* sums;                            ///< [sums, H]; on return what the backward pass reads
  const T* h;                         ///< [H]: before the step
  std::array<T*, max_states> states;  ///< [H] each: on return after the step; before it all but h
  T* operand;                         ///< the result of `operand`
  const T *weights, *constants;
};

/// The same for a backward pass.
template <Real T>
struct UnitRowGradient {
  Index n;
  T* sums;  ///< what the forward pass kept, on return the gradients of the sums
  std::array<const T*, max_states> before;
  std::array<T*, max_states> gradients;  ///< of the states after the step, on return of those
                                         ///< before it, without the part through products
  const T* dy;                           ///< added to the gradient of h; may be null
  const T* d_operand;                    ///< of operand_gradient: the gradient of the operand
  T* operand;                            ///< its result: the operand once more
  const T *weights, *constants;
  T* weight_gradients;  ///< [weights, H], added to
  T* parts;  ///< [sums, H] for sums that unit and operand both read; the unit's gradient of them
};

/// A cell. `operand` and its gradient exist if the layout has a second product.
template <Real T>
struct CellKernels {
  CellLayout layout;
  void (*unit)(const UnitRow<T>&);
  void (*unit_gradient)(const UnitRowGradient<T>&);
  void (*operand)(const UnitRow<T>&) = nullptr;
  void (*operand_gradient)(const UnitRowGradient<T>&) = nullptr;
};

}  // namespace reel::kernels
