#pragma once

#include <reel/autograd/gradients.h>

namespace reel::optim {

/// Scales all gradients by min(1, max_norm / (norm + min(1e-6, 1e-5 norm))), where `norm` is their
/// Euclidean norm together, and returns `norm`, the one before.
///
/// A norm that is infinite or NaN leaves the gradients as they are and is returned too, so that a
/// program can stop. Throws ValueError unless max_norm > 0. Pascanu, Mikolov and Bengio, "On the
/// difficulty of training recurrent neural networks", 2013; PyTorch has 1e-6 for the
/// minimum, with which norms far below that would not be clipped to max_norm.
double clip_by_norm(Gradients& gradients, double max_norm, Site site = {});

/// Moves every number of the gradients into [-limit, limit]; NaN stays NaN.
/// Throws ValueError unless limit > 0.
void clip_by_value(Gradients& gradients, double limit, Site site = {});

}  // namespace reel::optim
