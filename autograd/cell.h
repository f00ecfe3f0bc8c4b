#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/masks.h>
#include <reel/autograd/recurrent.h>

/// Recurrent cells and the ops that run them over a sequence. How to write one is in unit_cell.h.
namespace reel {

/// The parameters of a cell in one direction and its first state [B, H]; undefined where there is
/// none. With G blocks of H rows: w_ih [G H, D], b [G H], w_hh [G' H, P]; recurrent_bias [H];
/// numbers [N H], per unit, such as peepholes and the gains of norms; projection [P, H].
struct CellInputs {
  Tensor w_ih, w_hh, b = {}, recurrent_bias = {}, numbers = {}, projection = {};
  std::array<Tensor, kernels::max_states> states = {};

  /// Those that are not states, in the order above.
  std::array<const Tensor*, 6> parameters() const;
  /// Calls f(tensor) for each tensor that is given.
  template <class F>
  void map(F f) {
    for (Tensor* tensor : {&w_ih, &w_hh, &b, &recurrent_bias, &numbers, &projection})
      if (tensor->defined()) f(*tensor);
    for (Tensor& state : states)
      if (state.defined()) f(state);
  }
  /// The sizes of a step, from the shapes of the parameters.
  kernels::CellSizes sizes(const kernels::CellLayout& layout) const;
  /// W x + b, or with a norm LN(W x) + b.
  Tensor input_part(const kernels::CellLayout& layout, const Tensor& x) const;
};

/// A cell: its layout, its functions of a row, and the same step in ops.
struct CellSpec {
  const char* name;
  kernels::CellLayout layout;
  kernels::CellKernels<float> of_f32;
  kernels::CellKernels<double> of_f64;
  /// The states after the cell's function, from the input's part p [B, G H], the operand h of the
  /// recurrent product, and the states before the step; see states_after.
  Tensors (*step)(const Tensor& p, const Tensor& h, const Tensors& before,
                  const CellInputs& parameters, const Tensors& constants);
  /// The sum that the text of the cell uses in two ways or not at all, or -1.
  int (*misused_sum)();
  /// What a sum keeps.
  kernels::GateForm (*form)(int sum);

  template <Real T>
  const kernels::CellKernels<T>& kernels() const {
    if constexpr (std::is_same_v<T, float>)
      return of_f32;
    else
      return of_f64;
  }
};

/// Where in a call a step belongs, for its masks.
struct StepCall {
  kernels::StepOptions options = {};
  Index t = 0;
  int direction = 0;
};
/// The states after one step, in ops: products, the cell's function, projection, zoneout.
Tensors states_after(const CellSpec& cell, const Tensor& p, const Tensors& before,
                     const CellInputs& parameters, const StepCall& call);

namespace op {

// y, the last states of both directions, and two hidden outputs.
static_assert(1 + 2 * kernels::max_states + 2 <= max_outputs);

/// Which parameters an op has as arguments: those that any of its cells has.
struct OptionalParameters {
  bool w_hh = false, recurrent_bias = false, numbers = false, projection = false;
};

/// A call: the cell lives as long as the program, as does the op.
struct CellCall {
  const CellSpec* cell;
  bool reverse = false, both = false;
  kernels::StepOptions options = {};
  const OptionalParameters* takes = nullptr;  // of the op
};

/// Names of the arguments that differ between cells.
struct CellArguments {
  std::vector<const char*> states = {"h0"};
  const char* recurrent_bias = "recurrent_bias";
};

/// The op that runs a cell, or one of several variants of it, over a sequence.
class RecurrentOp {
 public:
  /// Throws ValueError if the registry has an op of that name, or if a cell uses a sum in two ways.
  RecurrentOp(const char* name, std::span<const CellSpec* const> variants,
              const CellArguments& arguments = {}, Site site = {});

  /// x [T, B, D] -> y [T, B, H] and the last states [B, H]. With two directions, the second one
  /// runs the other way, y is [T, B, 2 H], and its states follow those of the first. Throws
  /// ShapeError, DTypeError or ValueError, naming the argument, before any work.
  Tensors operator()(const CellSpec& cell, const Tensor& x, std::span<const CellInputs> directions,
                     const SequenceOptions& options, const kernels::StepOptions& step = {},
                     Site site = {}) const;

 private:
  Tensors run_in_segments(const CellSpec& cell, const Tensor& x,
                          std::span<const CellInputs> directions, const SequenceOptions& options,
                          const kernels::StepOptions& step, Site site) const;
  Tensors run_segment(const CellSpec& cell, const Tensor& part, const CellInputs& from,
                      const Segment& segment, bool outputs, const kernels::StepOptions& step,
                      Site site) const;

  OptionalParameters takes_;
  std::vector<std::string> names_;  // of the arguments, which the op refers to
  Op<CellCall> op_;
};

}  // namespace op

/// A cell with the op that runs it over a sequence.
struct FusedCell {
  const CellSpec& spec;
  const op::RecurrentOp& over_sequence;
};
/// The library's own, whose equations are in recurrent.h.
FusedCell rnn_cell(Activation activation, bool layer_norm = false);
FusedCell ind_rnn_cell(Activation activation);
FusedCell minimal_gated_cell();
/// `dropped`: the form that takes dropout of updates.
FusedCell gru_cell(Reset reset, bool layer_norm = false, bool dropped = false);
/// `masked`: the form that takes dropout of updates and a bound of the cell state, as all but the
/// standard cell do.
FusedCell lstm_cell(LstmVariant variant = LstmVariant::standard, bool peepholes = false,
                    bool masked = false);
FusedCell layer_norm_lstm_cell();
FusedCell full_gate_lstm_cell();
FusedCell slstm_cell(ForgetGate forget);

}  // namespace reel
