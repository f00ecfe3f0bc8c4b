#pragma once

#include <reel/autograd/rng.h>

namespace reel::nn {

/// Training mode: dropout is active and draws from `rng`.
struct Train {
  Rng& rng;
};

/// Evaluation mode: nothing is random.
struct Eval {};

/// How a model is run; an argument of every call, never a flag of the model. The default is Eval: a
/// training step has to pass Train, or a model with dropout trains without it.
class Mode {
 public:
  Mode(Eval) {}
  Mode(Train train) : rng_(&train.rng) {}

  bool training() const { return rng_ != nullptr; }
  /// The random number generator for training.
  Rng& rng() const { return *rng_; }

 private:
  Rng* rng_ = nullptr;
};

}  // namespace reel::nn
