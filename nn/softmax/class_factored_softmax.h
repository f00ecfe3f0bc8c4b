#pragma once

#include <span>
#include <vector>

#include <reel/nn/linear.h>
#include <reel/nn/softmax/two_level.h>

namespace reel::nn {

/// The head of a model with a large vocabulary whose symbols belong to classes (Goodman, "Classes
/// for fast maximum entropy training", 2001):
///
///     p(s) = p(class of s) · p(s | class) = softmax(classes(x)) · softmax over the class of w x +
///     b
///
/// A loss computes the logits of all classes and those of the members of the targets' classes, and
/// only these rows of w and b have a gradient (RowGradient). Parameters `classes.w` [C,
/// input_size], `classes.b` [C], `w` [V, input_size], `b` [V, 1].
struct ClassFactoredSoftmax {
  /// `class_of` has the class of each of the V symbols. Throws ValueError for sizes that are not
  /// positive, no symbols, a class that is negative and one below the largest without a symbol.
  ClassFactoredSoftmax(const ModuleParams& p, Arg<Index> input_size,
                       std::span<const std::int32_t> class_of);

  /// Σ p·(-ln p(target)) / Σ p, or the sum, for x [..., input_size] and targets i32 [...]. Throws
  /// ShapeError, DTypeError and ValueError as Linear::cross_entropy does.
  Tensor cross_entropy(const Tensor& x, const Tensor& targets, const ClassLossOptions& options = {},
                       Site site = {}) const;
  /// ln p of all symbols: x [..., input_size] -> [..., V], which are logits for `sample`.
  Tensor log_probabilities(const Tensor& x, Site site = {}) const;
  /// The most probable symbol: x [..., input_size] -> i32 [...]. Records nothing.
  Tensor predict(const Tensor& x, Site site = {}) const;
  /// Symbols drawn by their probabilities, first the class and then one of its members, so that the
  /// logits of other classes are not computed: x [B, input_size] -> i32 [B]. Row b draws two
  /// numbers from rngs[b]. Records nothing. Throws ShapeError unless there are B of these.
  Tensor sample(const Tensor& x, std::span<Rng> rngs, Site site = {}) const;

  Linear classes;
  Param w, b;

 private:
  // The logits of a class, x [..., input_size] -> [..., members].
  Tensor members_of(Index k, const Tensor& x) const;

  std::vector<Tensor> members_;  // i32 [n], of each class in ascending order
  Tensor places_;                // i32 [V], where a symbol is in the members of all classes
  std::vector<detail::TwoLevelSymbol> symbols_;
};

/// Classes of about equal probability: the symbols by falling count, equal ones by their number, in
/// `classes` parts, the next of which begins where their share of all counts is reached (Mikolov et
/// al., "Extensions of recurrent neural network language model", 2011), for ClassFactoredSoftmax.
/// There are fewer only of fewer symbols. Throws ValueError for no counts, a negative one, a sum of
/// 0 and unless `classes` is positive.
std::vector<std::int32_t> classes_by_frequency(std::span<const Index> counts, Arg<Index> classes,
                                               Site site = {});

}  // namespace reel::nn
