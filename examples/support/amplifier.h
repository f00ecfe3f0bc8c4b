#pragma once

#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

namespace reel::examples {

/// Samples of a string, and what an amplifier makes of them.
struct Recording {
  Tensor dry, wet;
};

/// A string that is plucked now and then, through an overdriven amplifier: a low-pass filter and
/// a tanh, whose gain sags while the string is loud. Both are [samples, 1].
Recording record(Index samples, Rng& rng);

/// Windows at random places, [steps, rows, 1].
Recording draw(const Recording& from, Index steps, Index rows, Rng& rng);

}  // namespace reel::examples
