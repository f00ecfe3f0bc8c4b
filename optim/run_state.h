#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/nn/files/location.h>
#include <reel/nn/named_tensors.h>

namespace reel::optim {

/// The whole state of a training run: what it takes to go on with the same bits as if it had never
/// stopped. (Recomputation in the backward pass, which is called checkpointing too, is in
/// autograd/checkpoint.h.)
struct RunState {
  nn::NamedTensors params = {};      ///< nn::from_params
  nn::NamedTensors optimizer = {};   ///< Optimizer::state
  std::vector<Tensor> carried = {};  ///< nn::flatten of the recurrent state; empty where it is zero
  Rng::State rng = {};               ///< of the source of randomness that dropout draws from
  /// Step, epoch, place in the data, sums of losses ...: kept exactly.
  std::map<std::string, double, std::less<>> numbers = {};
  /// What the program wants to find again, such as its settings.
  std::map<std::string, std::string, std::less<>> texts = {};

  /// The number of that name. Throws ValueError when there is none.
  double number(std::string_view name) const;
};

/// Writes a checkpoint as one safetensors file, replaced as a whole (see nn::AtomicFile). The
/// parameters have their own names in it, so every reader of the format finds the weights; the
/// names of the rest begin with "run.", a checksum among it. Equal checkpoints make equal files.
/// Throws ValueError for a parameter or text whose name begins with "run.", FileError when writing
/// fails.
void save_run_state(const nn::Location& where, const RunState& checkpoint);

/// Reads one. Throws FileError when the file cannot be read, is damaged or is not a checkpoint.
/// Whether the tensors fit a model is for nn::load_params and Optimizer::restore to say.
RunState load_run_state(const nn::Location& where);

}  // namespace reel::optim
