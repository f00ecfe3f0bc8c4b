#pragma once

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>

namespace reel::optim {

/// Learning rates by epoch, as plain values: `adam.set_learning_rate(schedule.at(epoch))` before
/// each epoch. Epochs count from 1. They are stateless, so a resumed run needs only its epoch.

/// A rate that is constant for `after` epochs and is then multiplied by `factor` every epoch:
/// learning_rate * factor^max(0, epoch - after), where `after` is at least 1. The schedule of
/// char-rnn, whose defaults these are.
struct ExponentialDecay {
  double learning_rate = 2e-3;
  double factor = 0.97;
  int after = 10;

  /// Throws ValueError if epoch < 1, or the rate or the factor is negative or not finite.
  double at(Arg<int> epoch, Site site = {}) const;
};

/// A rate that is multiplied by `factor` after every `every` epochs:
/// learning_rate * factor^floor((epoch - 1) / every), PyTorch's StepLR.
struct StepDecay {
  double learning_rate = 2e-3;
  double factor = 0.5;
  int every = 5;

  /// Throws ValueError if epoch < 1, every < 1, or the rate or the factor is negative or not
  /// finite.
  double at(Arg<int> epoch, Site site = {}) const;
};

}  // namespace reel::optim
