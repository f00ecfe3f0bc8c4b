#pragma once

#include <reel/autograd/rng.h>

namespace reel::nn {

/// Running a model to train it: dropout is active and draws from `rng`.
struct Train {
  Rng& rng;
};

/// Running a model to use it: nothing is random.
struct Eval {};

/// How a model is run; an argument of every call, never a flag of the model. Where a call leaves it
/// out, it is Eval: a training step has to say Train, or a model with dropout learns without it.
class Mode {
 public:
  Mode(Eval) {}
  Mode(Train train) : rng_(&train.rng) {}

  bool training() const { return rng_ != nullptr; }
  /// The source of randomness while training.
  Rng& rng() const { return *rng_; }

 private:
  Rng* rng_ = nullptr;
};

}  // namespace reel::nn
