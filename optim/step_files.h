#pragma once

#include <filesystem>
#include <map>

#include <reel/optim/run_state.h>

namespace reel::optim {

/// Files of a directory with the states of a run after some of its steps, of which the newest are
/// kept: step-000100.safetensors, step-000200.safetensors ...
class StepFiles {
 public:
  /// Keeps the `keep` files of the last steps. Throws ValueError unless keep > 0.
  StepFiles(std::filesystem::path directory, Arg<Index> keep, Site site = {});

  /// Writes the state after `step`, as save_run_state does, and once that is on the disk removes
  /// the files of the earliest steps that are too many; never the one that it wrote, nor a file of
  /// another name. Throws ValueError for a negative step, FileError if a file cannot be written or
  /// removed.
  void save(Arg<Index> step, const RunState& state, Site site = {}) const;

  /// The name of the file of a step.
  static std::string name_of(Index step);
  /// The files that are there, by step. Throws FileError if the directory cannot be read.
  std::map<Index, std::filesystem::path> files() const;

 private:
  std::filesystem::path directory_;
  Index keep_;
};

}  // namespace reel::optim
