#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <reel/autograd/shape.h>
#include <reel/nn/diagnostics.h>
#include <reel/nn/files/location.h>
#include <reel/optim/clip.h>

namespace reel::char_lm {

/// What --diagnose adds: the layers in the last step of a stretch.
struct Diagnosis {
  std::vector<nn::LayerReport> layers;
};

/// What is reported about a stretch of training: 100 steps, or an epoch. Losses are in nats per
/// symbol.
struct Metrics {
  Index step = 0;                         ///< the last one
  int epoch = 0;                          ///< counted from 1
  double train_loss = 0;                  ///< mean over the stretch
  std::optional<double> valid_loss = {};  ///< of an epoch, if part of the text is for validation
  double lr = 0;
  double grad_norm = 0;                       ///< at the last step, before clipping
  double chars_per_s = 0;                     ///< symbols, in training, without validation
  double elapsed_s = 0;                       ///< since the run began, without interruptions
  std::optional<optim::ClipCount> clip = {};  ///< over the stretch, if gradients are clipped
  Index skipped = 0;                          ///< steps without an update, since the run began
  std::optional<Diagnosis> diagnosis = {};
};

/// The line of metrics.jsonl, with its newline.
std::string json_line(const Metrics& metrics);

/// Calls f with each line of a metrics.jsonl, in order. Throws FileError with the line that is
/// damaged.
void each_metrics(const nn::Location& where, const std::function<void(const Metrics&)>& f);

/// The file metrics.jsonl: one JSON object per line.
class MetricsFile {
 public:
  /// Keeps the first `lines` lines of the file and drops the rest; the file may be missing or
  /// shorter. Throws FileError, also if the path is not a regular file.
  MetricsFile(const nn::Location& where, Index lines);

  /// Appends a line, if possible with a single write, so that a crash does not leave a partial
  /// line. Throws FileError, having added nothing.
  void append(const Metrics& metrics);

  /// `elapsed_s` of the last line; 0 without one.
  double elapsed_s() const { return elapsed_s_; }

 private:
  nn::Location where_;
  double elapsed_s_ = 0;
};

}  // namespace reel::char_lm
