#pragma once

#include <string_view>

#include <reel/nn/named_tensors.h>

#include "event_file.h"
#include "metrics.h"
#include "run_directory.h"
#include "samples.h"

namespace reel::char_lm {

/// What TensorBoard shows of a training: a file of events for each start, in RUN/tensorboard. All
/// writers throw FileError.
class TensorBoard {
 public:
  /// Of a training that goes on after `last_step`.
  TensorBoard(const RunDirectory& run, Index last_step)
      : events_(run.new_event_file(), last_step) {}

  /// Loss, rate, norm of the gradient and speed, and if there is a diagnosis the layers' gates and
  /// gradients. An epoch's losses have other tags than those of 100 steps.
  void metrics(const Metrics& line, bool is_epoch);
  /// A histogram of each tensor; `kind` begins its tag: "weights/".
  void histograms(std::string_view kind, Index step, const nn::NamedTensors& tensors);
  void sample(const Sample& sample);

 private:
  void layer(Index step, const nn::LayerReport& layer);

  EventFile events_;
};

}  // namespace reel::char_lm
