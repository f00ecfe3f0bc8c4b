#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/nn/files/location.h>
#include <reel/nn/named_tensors.h>

namespace reel::optim {

/// The whole state of a training run (a checkpoint): everything needed to resume bit for bit as if
/// it had never stopped. Gradient checkpointing, recomputation in the backward pass, is in
/// autograd/checkpoint.h.
struct RunState {
  nn::NamedTensors params = {};     ///< nn::from_params
  nn::NamedTensors optimizer = {};  ///< Optimizer::state
  /// The states of whatever else there is, under their own names: averages, ReduceOnPlateau ...
  nn::NamedTensors more = {};
  std::vector<Tensor> carried = {};  ///< nn::flatten of the recurrent state; empty where it is zero
  std::vector<nn::NamedTensors> earlier = {};  ///< TbpttHistory::params; then `carried` and `rng`
                                               ///< are those of the history
  Rng::State rng = {};                         ///< of the generator that dropout draws from
  /// Step, epoch, position in the data, sums of losses ...: stored exactly.
  std::map<std::string, double, std::less<>> numbers = {};
  /// Further data of the program, such as its settings.
  std::map<std::string, std::string, std::less<>> texts = {};

  /// The number of that name. Throws ValueError if there is none.
  double number(std::string_view name, Site site = {}) const;
};

/// Writes a checkpoint as one safetensors file, replaced as a whole (see nn::AtomicFile). The
/// parameters keep their own names, so every reader of the format finds the weights; all other
/// names, including a checksum, begin with "run.". Equal checkpoints make equal files. Throws
/// ValueError for a parameter or text whose name begins with "run.", FileError if writing fails.
void save_run_state(const nn::Location& where, const RunState& checkpoint, Site site = {});

/// Reads a checkpoint. Throws FileError if the file cannot be read, is damaged, is not a
/// checkpoint, or has an entry beginning with "run." that is unknown. Whether the tensors fit a
/// model is checked by nn::load_params and Optimizer::restore.
RunState load_run_state(const nn::Location& where);

}  // namespace reel::optim
