#pragma once

#include <reel/autograd/ops.h>
#include <reel/nn/embedding.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

/// The options of Linear.
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
  /// Tied to an embedding (Press and Wolf, "Using the output embedding to improve language models",
  /// 2017): w is its table [count, size], so x has `size` features, and only `b` [count] is
  /// created. Throws ValueError for a `weight_init`, as the embedding has made the weights.
  Linear(const ModuleParams& p, const Embedding& embedding, const LinearOptions& options = {});

  /// Throws ShapeError unless the last axis of x has `input_size` elements.
  Tensor operator()(const Tensor& x, Site site = {}) const;
  /// The cross-entropy of targets i32 [...] with the outputs as logits, without storing these; see
  /// linear_cross_entropy. For the head of a model with a large vocabulary.
  Tensor cross_entropy(const Tensor& x, const Tensor& targets,
                       const LinearCrossEntropyOptions& options = {}, Site site = {}) const;

  Param w, b;

 private:
  // That which names the module: tied weights have the name of the embedding.
  const Param& own() const { return b.defined() ? b : w; }
};

}  // namespace reel::nn
