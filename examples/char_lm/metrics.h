#pragma once

#include <optional>

#include <reel/autograd/shape.h>
#include <reel/nn/files/location.h>

namespace reel::char_lm {

/// What is reported of a stretch of training: of 100 steps, or of an epoch. Losses are in nats per
/// character.
struct Metrics {
  Index step = 0;                         ///< the last one
  int epoch = 0;                          ///< counted from 1
  double train_loss = 0;                  ///< mean over the stretch
  std::optional<double> valid_loss = {};  ///< of an epoch, when part of the text validates
  double lr = 0;
  double grad_norm = 0;    ///< at the last step, before clipping
  double chars_per_s = 0;  ///< while training
  double elapsed_s = 0;    ///< since the run began, pauses left out
};

/// The file metrics.jsonl: one JSON object a line.
class MetricsFile {
 public:
  /// Keeps the first `lines` lines of the file and drops what follows them; there need not be a
  /// file, or so many lines. Throws FileError, also when there is something that is no file.
  MetricsFile(const nn::Location& where, Index lines);

  /// Adds a line, where possible with one write, so that a crash leaves no half of it behind.
  /// Throws FileError, having added nothing.
  void append(const Metrics& metrics);

  /// `elapsed_s` of the last line; 0 without one.
  double elapsed_s() const { return elapsed_s_; }

 private:
  nn::Location where_;
  double elapsed_s_ = 0;
};

}  // namespace reel::char_lm
