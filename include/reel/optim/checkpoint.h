#pragma once
// Moved, and renamed; what is here works until version 0.3.
#include <reel/optim/run_state.h>

namespace reel::optim {
using Checkpoint = RunState;
inline void save_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  save_run_state(path, checkpoint);
}
inline Checkpoint load_checkpoint(const std::filesystem::path& path) {
  return load_run_state(path);
}
}  // namespace reel::optim
