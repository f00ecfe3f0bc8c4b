#pragma once

#include <reel/autograd/shape.h>

namespace reel::datasets {

/// Precision, recall and F1 of what was found among what there is. A ratio without a denominator is
/// 0.
struct FScore {
  Index correct = 0;      ///< found rightly
  Index predictions = 0;  ///< found
  Index targets = 0;      ///< there

  /// correct / predictions.
  double precision() const { return ratio(correct, predictions); }
  /// correct / targets.
  double recall() const { return ratio(correct, targets); }
  /// The harmonic mean of both: 2 correct / (predictions + targets).
  double f1() const { return ratio(2 * correct, predictions + targets); }

  /// Adding the counts of several classes gives their micro average.
  FScore& operator+=(const FScore& other) {
    correct += other.correct;
    predictions += other.predictions;
    targets += other.targets;
    return *this;
  }
  bool operator==(const FScore&) const = default;

 private:
  static double ratio(Index part, Index whole) {
    return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
  }
};

}  // namespace reel::datasets
