#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

namespace reel::optim {

/// Whether a number is the better the smaller it is, as a loss, or the larger, as an accuracy.
enum class Better : std::uint8_t { smaller, larger };

/// The options of EarlyStopping.
struct EarlyStoppingOptions {
  Index patience = 5;  ///< values in a row without an improvement after which training should stop
  double min_delta = 0;  ///< what an improvement on the best value has to exceed
  Better better = Better::smaller;
};

/// Stops training when a number, usually the loss on a validation part, no longer improves
/// (Prechelt, "Early stopping - but when?", 1998).
///
///     if (stopping.update(valid_loss)) save(...);  // the best so far
///     if (stopping.should_stop()) break;
class EarlyStopping {
 public:
  /// Throws ValueError unless the patience is positive and min_delta finite and not negative.
  explicit EarlyStopping(const EarlyStoppingOptions& options = {}, Site site = {});

  /// Takes the next value; returns whether it is the best one so far, by more than min_delta or by
  /// any amount if that is 0. A value that is not finite is never the best.
  bool update(Arg<double> value);
  /// Whether the last `patience` values were no improvement.
  bool should_stop() const { return since_best_ >= options_.patience; }

  /// The last value that was an improvement; none if none was finite.
  std::optional<double> best() const { return best_; }
  /// The number of values since the best one.
  Index since_best() const { return since_best_; }

  /// The state, for RunState::numbers: early_stopping.since_best, and early_stopping.best if there
  /// is one.
  std::map<std::string, double, std::less<>> numbers() const;
  /// Continues with the state in these numbers, among which there may be others. Throws ValueError
  /// if it is missing or impossible.
  void restore(const std::map<std::string, double, std::less<>>& numbers, Site site = {});

 private:
  EarlyStoppingOptions options_;
  std::optional<double> best_;
  Index since_best_ = 0;
};

}  // namespace reel::optim
