#pragma once

#include <reel/autograd/gradients.h>
#include <reel/nn/selection.h>

namespace reel::optim {

/// Scales all gradients by min(1, max_norm / (norm + min(1e-6, 1e-5 norm))), where `norm` is their
/// global Euclidean norm, and returns `norm`, before clipping.
///
/// If the norm is infinite or NaN the gradients are unchanged and it is returned, so that a program
/// can stop. Throws ValueError unless max_norm > 0. Pascanu, Mikolov and Bengio, "On the difficulty
/// of training recurrent neural networks", 2013; PyTorch uses 1e-6 in place of the minimum, which
/// would not clip norms far below that to max_norm.
double clip_by_norm(Gradients& gradients, Arg<double> max_norm, Site site = {});

/// The same for the gradients of some parameters, by their own norm. Throws ValueError if there are
/// no such parameters.
double clip_by_norm(Gradients& gradients, Arg<double> max_norm, const nn::Selection& selection,
                    Site site = {});

/// Clamps every element of the gradients to [-limit, limit]; NaN stays NaN.
/// Throws ValueError unless limit > 0.
void clip_by_value(Gradients& gradients, Arg<double> limit, Site site = {});

/// Clips the gradient of each unit in proportion to its weights w, a row of a matrix or a whole
/// vector: g <- g min(1, ratio max(|w|, least) / |g|). Returns the share of units clipped. A unit
/// whose gradient is infinite or NaN is unchanged.
///
/// Throws ValueError unless ratio and least > 0. Brock et al., "High-performance large-scale image
/// recognition without normalization", 2021 (adaptive gradient clipping, AGC).
double clip_adaptive(Gradients& gradients, Arg<double> ratio, double least = 1e-3, Site site = {});

/// How often gradients were clipped by their norm: `count.add(clip_by_norm(g, 5), 5)`.
struct ClipCount {
  Index steps = 0, clipped = 0;
  double mean_norm = 0, largest_norm = 0;  ///< before clipping

  /// Counts a step with this norm before clipping.
  void add(double norm, double max_norm);
  /// clipped / steps, 0 before the first step.
  double share() const;
};

/// The factor with which clip_by_norm multiplies.
double clip_factor(double norm, double max_norm);

}  // namespace reel::optim
