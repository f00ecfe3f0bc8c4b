#pragma once

#include <string>
#include <vector>

#include "run_directory.h"

namespace reel::char_lm {

/// The time of an op in a step of training, in milliseconds.
struct OpTime {
  std::string op;
  Index calls = 0;  ///< forward
  double forward = 0, backward = 0;

  double total() const { return forward + backward; }
};

/// Measures here and now how long the ops of a step of a run's training take, forward and backward
/// without the optimizer, the longest first: the mean of three steps after one to warm up, of the
/// run's batch and TBPTT length, on made-up characters. Throws FileError for the run, MemoryError.
std::vector<OpTime> profile_step(const RunDirectory& run);

}  // namespace reel::char_lm
