#pragma once

#include <span>
#include <string>
#include <vector>

#include <reel/datasets/f_score.h>
#include <reel/datasets/metrics.h>

namespace reel::datasets {

/// How often each class was taken for each: counts [targets, predictions] over any number of
/// batches.
class ConfusionMatrix {
 public:
  /// Of classes 0 .. classes - 1. Throws ValueError unless there is at least one, and at most 4096.
  explicit ConfusionMatrix(Arg<Index> classes, Site site = {});
  /// Of classes with names, for `str`. Throws likewise.
  explicit ConfusionMatrix(std::vector<std::string> names, Site site = {});

  /// Counts a batch: i32 tensors of one shape, predictions such as argmax(logits). Throws
  /// DTypeError, ShapeError, or ValueError naming a class that there is not; then nothing of the
  /// batch is counted.
  void add(const Tensor& targets, const Tensor& predictions, const Ignored& ignored = {},
           Site site = {});

  Index classes() const { return classes_; }
  /// How often `target` was predicted as `prediction`. Throws ValueError for a class that there is
  /// not.
  Index count(Arg<Index> target, Arg<Index> prediction, Site site = {}) const;
  /// The number of positions counted.
  Index total() const;

  /// The share of positions where the prediction is the target; 0 without any.
  double accuracy() const;
  /// Precision, recall and F1 of a class. Throws ValueError if there is no such class.
  FScore score(Arg<Index> c, Site site = {}) const;
  /// The mean of the classes' F1, over those that occur among targets or predictions.
  double macro_f1() const;
  /// The F1 of the classes' summed counts, without those of the classes in `without`, such as that
  /// of "no entity". Over all classes it is the accuracy.
  double micro_f1(std::span<const Index> without = {}, Site site = {}) const;

  /// An aligned table: a row for each target, with its counts, precision, recall and F1.
  std::string str() const;

 private:
  std::size_t place(Index target, Index prediction) const {
    return static_cast<std::size_t>(target * classes_ + prediction);
  }
  void require_class(Index c, Site site) const;
  std::string name(Index c) const;

  Index classes_;
  std::vector<std::string> names_;
  std::vector<Index> counts_;  // row-major
};

}  // namespace reel::datasets
