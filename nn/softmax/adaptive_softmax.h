#pragma once

#include <vector>

#include <reel/nn/linear.h>
#include <reel/nn/softmax/two_level.h>

namespace reel::nn {

/// The options of AdaptiveSoftmax.
struct AdaptiveSoftmaxOptions {
  double div_value = 4;    ///< d; tail i sees x through input_size / d^(i+1) features
  bool head_bias = false;  ///< the tails have no biases
};

/// The head of a model with a large vocabulary whose symbols are sorted by falling frequency (Grave
/// et al., "Efficient softmax approximation for GPUs", 2017): the head predicts the first symbols
/// and, with one output each, tails of rarer ones, each with fewer features than the one before:
///
///     p(s) = head(x)[s]                  for s < cutoffs[0]
///     p(s) = head(x)[tail] · tail(x)[s]  for others, tail(x) = softmax(output (projection x))
///
/// A tail is computed for the rows of its own targets alone. Parameters `head.w` [cutoffs[0] +
/// tails, input_size] (and `head.b`), `tail.i.projection.w` [⌊input_size / d^(i+1)⌋, input_size]
/// and `tail.i.output.w` [symbols, those]; PyTorch's AdaptiveLogSoftmaxWithLoss.
struct AdaptiveSoftmax {
  /// `cutoffs` are the first symbols of the tails. Throws ValueError for sizes that are not
  /// positive, unless 0 < cutoffs[0] < ... < classes, unless div_value is at least 1 and finite,
  /// and for a tail without features.
  AdaptiveSoftmax(const ModuleParams& p, Arg<Index> input_size, Arg<Index> classes,
                  const std::vector<Index>& cutoffs, const AdaptiveSoftmaxOptions& options = {});

  /// Σ p·(-ln p(target)) / Σ p, or the sum, for x [..., input_size] and targets i32 [...]. Throws
  /// ShapeError, DTypeError and ValueError as Linear::cross_entropy does.
  Tensor cross_entropy(const Tensor& x, const Tensor& targets, const ClassLossOptions& options = {},
                       Site site = {}) const;
  /// ln p of all symbols: x [..., input_size] -> [..., classes], which are logits for `sample`.
  Tensor log_probabilities(const Tensor& x, Site site = {}) const;
  /// The most probable symbol: x [..., input_size] -> i32 [...]. Where it is one of the head's, the
  /// tails are not looked at. Records nothing.
  Tensor predict(const Tensor& x, Site site = {}) const;

  /// The two layers of a tail.
  struct Tail {
    /// Creates `projection` and `output`, both without biases.
    Tail(const Params& p, Index input_size, Index features, Index classes);
    Linear projection, output;
  };
  Linear head;
  std::vector<Tail> tails;
  std::vector<Index> cutoffs;  ///< the last one is the number of classes

 private:
  std::vector<detail::TwoLevelSymbol> symbols_;
};

}  // namespace reel::nn
