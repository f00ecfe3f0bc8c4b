#pragma once

#include <concepts>
#include <functional>
#include <optional>
#include <vector>

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

/// Learning rates as plain values: `adam.set_learning_rate(schedule.at(t))` before the t-th step,
/// or epoch; a schedule is of the one or of the other, as the caller counts. Counting begins at 1.
/// They are stateless, so a resumed run needs only t. A rate that follows a loss is that of
/// ReduceOnPlateau.
namespace reel::optim {

/// A rate that is constant for `after` epochs and is then multiplied by `factor` every epoch:
/// learning_rate * factor^max(0, t - after), where `after` is at least 1. The schedule of
/// char-rnn, whose defaults these are; with `after = 1` PyTorch's ExponentialLR.
struct ExponentialDecay {
  double learning_rate = 2e-3;
  double factor = 0.97;
  int after = 10;

  /// Throws ValueError if t < 1, or the rate or the factor is negative or not finite.
  double at(Arg<Index> t, Site site = {}) const;
};

/// A rate that is multiplied by `factor` after every `every` epochs:
/// learning_rate * factor^floor((t - 1) / every), PyTorch's StepLR.
struct StepDecay {
  double learning_rate = 2e-3;
  double factor = 0.5;
  int every = 5;

  /// Throws ValueError if t < 1, every < 1, or the rate or the factor is negative or not finite.
  double at(Arg<Index> t, Site site = {}) const;
};

/// A rate that falls to `least` within `length` steps by a power of what is left:
/// least + (learning_rate - least) (1 - (t - 1) / length)^power. PyTorch's PolynomialLR, where
/// `least` is 0.
struct PolynomialDecay {
  double learning_rate = 1e-3;
  Index length = 1000;
  double power = 1;
  double least = 0;

  /// Throws ValueError unless 1 <= t <= length, and for a rate or power that is negative or not
  /// finite.
  double at(Arg<Index> t, Site site = {}) const;
};

/// A rate that falls to `least` along half a wave, with e = (t - 1) / length:
/// least + (learning_rate - least) (1 + cos(pi e)) / 2.
///
/// With `restarts` the wave begins again after `length` steps, and every period is `growth` times
/// as long as the one before: PyTorch's CosineAnnealingWarmRestarts; without them
/// CosineAnnealingLR, which rises again after its end. Loshchilov and Hutter, "SGDR", 2017.
struct CosineDecay {
  double learning_rate = 1e-3;
  Index length = 1000;
  double least = 0;
  bool restarts = false;
  int growth = 1;

  /// Throws ValueError if t < 1, or, without restarts, t > length; for a rate that is negative or
  /// not finite; if length or growth < 1.
  double at(Arg<Index> t, Site site = {}) const;
};

/// A rate that rises from learning_rate / start_divisor to learning_rate during the share `rise` of
/// `length` steps, then falls to learning_rate / (start_divisor end_divisor), along half a wave
/// both times: PyTorch's OneCycleLR with its defaults. Smith and Topin, "Super-Convergence", 2018.
struct OneCycle {
  double learning_rate = 1e-3;  ///< the largest
  Index length = 1000;
  double rise = 0.3;
  double start_divisor = 25, end_divisor = 1e4;

  /// Throws ValueError unless 1 <= t <= length, 0 <= rise <= 1 and the divisors are positive; for a
  /// rate that is negative or not finite.
  double at(Arg<Index> t, Site site = {}) const;
};

/// Any schedule, or a constant rate: what the composed ones are made of.
class Schedule {
 public:
  /// A constant rate. Throws ValueError for one that is negative or not finite.
  Schedule(double learning_rate, Site site = {});
  template <class S>
  requires(!std::same_as<S, Schedule> &&
           requires(const S& schedule, Index t, Site site) { schedule.at(t, site); })
      Schedule(const S& schedule)
      : at_([schedule](Index t, Site site) { return schedule.at(t, site); }),
        length_(length_of(schedule)) {}

  /// The rate at step t >= 1. Throws what the schedule throws.
  double at(Arg<Index> t, Site site = {}) const { return at_(t, site); }
  /// The last t that it is defined for; none for one without an end.
  std::optional<Index> length() const { return length_; }
  /// Throws ValueError if it has an end other than that of a run of `steps`.
  void require_length(Arg<Index> steps, Site site = {}) const;

 private:
  template <class S>
  static std::optional<Index> length_of(const S& schedule) {
    if constexpr (requires { schedule.restarts; })
      return schedule.restarts ? std::nullopt : std::optional(schedule.length);
    else if constexpr (requires { schedule.length(); })
      return schedule.length();
    else if constexpr (requires { schedule.length; })
      return schedule.length;
    else
      return std::nullopt;
  }

  std::function<double(Index, Site)> at_;
  std::optional<Index> length_;
};

/// A linear rise to the first rate of another schedule, which follows:
///
///     t <= steps: then.at(1) t / steps,  after that: then.at(t - steps)
///
/// PyTorch's LinearLR from the factor 1 / steps. Goyal et al., "Accurate, large minibatch SGD",
/// 2017.
struct Warmup {
  Index steps = 1000;
  Schedule then = 1e-3;

  /// Throws ValueError if t or steps < 1, and what `then` throws.
  double at(Arg<Index> t, Site site = {}) const;
  /// The last t that it is defined for; none for one without an end.
  std::optional<Index> length() const;
};

/// Schedules one after the other, each counting from 1: `parts` for `steps` each, then `last`.
/// PyTorch's SequentialLR.
struct Sequence {
  /// A schedule for so many steps.
  struct Part {
    Index steps;
    Schedule schedule;
  };
  std::vector<Part> parts;
  Schedule last;

  /// Throws ValueError if t < 1 or a part has less than one step, and what the part throws.
  double at(Arg<Index> t, Site site = {}) const;
  /// The last t that it is defined for; none for one without an end.
  std::optional<Index> length() const;
};

/// A schedule of epochs, by steps: by_epoch.at(1 + floor((t - 1) / steps)). So a warm-up in steps
/// can come before a schedule of epochs.
struct ByEpoch {
  Index steps;  ///< in an epoch
  Schedule epochs;

  /// Throws ValueError if t or steps < 1, and what the schedule throws.
  double at(Arg<Index> t, Site site = {}) const;
  /// The last t that it is defined for; none for one without an end.
  std::optional<Index> length() const;
};

}  // namespace reel::optim
