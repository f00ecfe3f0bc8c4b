#pragma once

#include <string>
#include <vector>

#include <reel/autograd/shape.h>
#include <reel/nn/files/location.h>

namespace reel::char_lm {

/// What a training runs on and with.
struct Machine {
  std::string processor;     ///< "AMD EPYC"
  int threads = 0;           ///< that the training uses
  std::string compiler;      ///< "g++ 12.2.0"
  std::string instructions;  ///< that its kernels use: "avx2"
  std::string reel;          ///< the version: "0.1.0"
  std::string libraries;     ///< "Eigen 3.4.0, fmt 9.1.0, ..."

  bool operator==(const Machine&) const = default;
};
Machine this_machine();

/// A machine and the step of a run from which on it was used.
struct Start {
  Index step = 0;
  Machine machine;
};

/// The lines of a machines.jsonl, at most the last 20. Throws FileError with the line that is
/// damaged.
std::vector<Start> read_starts(const nn::Location& where);
/// Appends a line unless the last one is of the same machine. Throws FileError.
void note_start(const nn::Location& where, const Start& start);

}  // namespace reel::char_lm
