#pragma once

#include <reel/autograd/ops.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

struct LinearOptions {
  bool bias = true;
  /// By default both are uniform with bound 1/√input_size.
  Initializer weight_init = {}, bias_init = {};
};

/// y = x·wᵀ + b: x [..., input_size] -> [..., output_size]. Parameters `w` [output_size,
/// input_size] and `b` [output_size].
struct Linear {
  /// Throws ValueError for sizes that are not positive.
  Linear(const ModuleParams& p, Arg<Index> input_size, Arg<Index> output_size,
         const LinearOptions& options = {});

  /// Throws ShapeError unless the last axis of x has `input_size` elements.
  Tensor operator()(const Tensor& x, Site site = {}) const;
  /// The cross-entropy of targets i32 [...] with the outputs as logits, without storing these; see
  /// linear_cross_entropy. For the head of a model with a large vocabulary.
  Tensor cross_entropy(const Tensor& x, const Tensor& targets,
                       const LinearCrossEntropyOptions& options = {}, Site site = {}) const;

  Param w, b;
};

}  // namespace reel::nn
