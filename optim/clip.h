#pragma once

#include <reel/autograd/gradients.h>

namespace reel::optim {

/// Scales all gradients by min(1, max_norm / (norm + 1e-6)), where `norm` is their Euclidean norm
/// together, and returns `norm`, the one before.
///
/// A norm that is infinite or NaN leaves the gradients as they are and is returned too, so that a
/// program can stop. Throws ValueError unless max_norm > 0. Pascanu, Mikolov and Bengio, "On the
/// difficulty of training recurrent neural networks", 2013; the formula is that of PyTorch.
double clip_by_norm(Gradients& gradients, double max_norm);

/// Moves every number of the gradients into [-limit, limit]; NaN stays NaN.
/// Throws ValueError unless limit > 0.
void clip_by_value(Gradients& gradients, double limit);

}  // namespace reel::optim
