#pragma once

#include <reel/autograd/gradients.h>

namespace reel::optim {

/// Scales all gradients by min(1, max_norm / (norm + min(1e-6, 1e-5 norm))), where `norm` is their
/// global Euclidean norm, and returns `norm`, before clipping.
///
/// If the norm is infinite or NaN the gradients are unchanged and it is returned, so that a program
/// can stop. Throws ValueError unless max_norm > 0. Pascanu, Mikolov and Bengio, "On the difficulty
/// of training recurrent neural networks", 2013; PyTorch uses 1e-6 in place of the minimum, which
/// would not clip norms far below that to max_norm.
double clip_by_norm(Gradients& gradients, Arg<double> max_norm, Site site = {});

/// Clamps every element of the gradients to [-limit, limit]; NaN stays NaN.
/// Throws ValueError unless limit > 0.
void clip_by_value(Gradients& gradients, Arg<double> limit, Site site = {});

}  // namespace reel::optim
