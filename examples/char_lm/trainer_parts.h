#pragma once

#include <reel/autograd/gradients.h>
#include <reel/datasets/windows.h>
#include <reel/nn/named_tensors.h>

#include "commands.h"
#include "progress.h"
#include "run_directory.h"
#include "training_log.h"

/// What a training does whatever its kind of layer.
namespace reel::char_lm {

/// The last steps before a window.
datasets::Window last_steps(const datasets::Windows& windows, Index window, Index steps);

/// The gradients by the names of their parameters.
nn::NamedTensors by_name(const Gradients& gradients);

/// How far a training is, which has so many steps an epoch.
Position position_of(const Progress& at, const Settings& settings, Index steps_per_epoch,
                     double learning_rate);

/// Writes report.html; a failure is noted in the log, as the training is worth more.
void write_report(const RunDirectory& run, const RunConfig& config, const Progress& at,
                  const Params& params, TrainingLog& log);

/// Gives a new model weights of another framework, in the order of its symbols.
void take_weights(const StartWeights& start, const Params& params);

}  // namespace reel::char_lm
