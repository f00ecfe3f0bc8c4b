#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/engine/segments.h>
#include <reel/autograd/kernels/cell.h>
#include <reel/autograd/kernels/gates.h>
#include <reel/autograd/recurrent.h>

/// Recurrent cells and the ops that run them over a sequence. How to write one is in unit_cell.h.
namespace reel {

/// The parameters of a cell in one direction and its first state [B, H]; undefined where there is
/// none. With G blocks of H rows: w_ih [G H, D], b [G H], w_hh [G' H, H]; recurrent_bias [H];
/// weights [W H], numbers per unit such as peepholes.
struct CellInputs {
  Tensor w_ih, w_hh, b = {}, recurrent_bias = {}, weights = {};
  std::array<Tensor, kernels::max_states> states = {};

  /// W x + b.
  Tensor input_projection(const Tensor& x) const;
};

/// A cell: its layout, its functions of a row, and the same step in ops.
struct CellSpec {
  const char* name;
  kernels::CellLayout layout;
  kernels::CellKernels<float> of_f32;
  kernels::CellKernels<double> of_f64;
  /// The states after a step, from p = W x + b [B, G H] and the states before it.
  Tensors (*step)(const Tensor& p, const Tensors& before, const CellInputs& parameters);
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

namespace op {

/// A call: the cell lives as long as the program.
struct CellCall {
  const CellSpec* cell;
  bool reverse = false, both = false;
  bool takes_recurrent_bias = false, takes_weights = false;  // whether the op has such an argument
};

/// Names of the arguments that differ between cells; null: there is no such argument.
struct CellArguments {
  std::vector<const char*> states = {"h0"};
  const char* recurrent_bias = nullptr;
  const char* weights = nullptr;
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
                     const SequenceOptions& options, Site site) const;

 private:
  Tensors run_in_segments(const CellSpec& cell, const Tensor& x,
                          std::span<const CellInputs> directions, const SequenceOptions& options,
                          Site site) const;
  Tensors run_segment(const CellSpec& cell, const Tensor& part, const CellInputs& from,
                      const Segment& segment, bool outputs, Site site) const;

  std::vector<std::string> names_;  // of the arguments, which the op refers to
  CellCall form_;                   // of every call
  Op<CellCall> op_;
};

}  // namespace op

/// A cell with the op that runs it over a sequence.
struct FusedCell {
  const CellSpec& spec;
  const op::RecurrentOp& over_sequence;
};
/// The library's own, whose equations are in recurrent.h.
FusedCell rnn_cell(Activation activation);
FusedCell gru_cell(Reset reset);
FusedCell lstm_cell(LstmVariant variant = LstmVariant::standard, bool peepholes = false);

}  // namespace reel
