#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "settings.h"

/// What a search over settings draws its trials from, and how long it trains them.
namespace reel::char_lm {

/// The values of a setting that a search draws from: numbers from one to another, or a choice.
class Range {
 public:
  /// Reads "lr=1e-4..1e-1" or "model=gru,lstm" (or gru|lstm). Throws ValueError for an unknown
  /// setting, one that may not differ between trials, a value that it may not have, and a range
  /// that holds fewer than two.
  explicit Range(std::string_view text);

  const std::string& name() const { return name_; }      ///< of the setting
  const std::string& values() const { return values_; }  ///< as they were given
  /// How it is drawn from: "log-uniform", "uniform" or "a choice".
  std::string_view distribution() const;
  /// The value at the quantile u, 0 <= u < 1: low (high / low)^u where low > 0, otherwise
  /// low + (high - low) u, with three digits that matter; or one of the choice.
  std::string at(double u) const;

 private:
  void read_bounds(std::string_view low, std::string_view high);
  void read_choice();

  std::string name_, values_;
  std::vector<std::string> choice_;  // empty: numbers
  bool is_whole_ = false;
  double low_ = 0, high_ = 0;
};

/// The settings of a search.
struct SearchSpace {
  Settings fixed;  ///< with defaults for what is neither given nor searched
  Given given;     ///< the names of those that the user passed
  std::vector<Range> ranges;
};

/// Gives settings whose default is another setting that default again, except those in `given`.
void forget_completed(Settings& settings, const std::set<std::string>& given);

/// The ranges of a search without any of its own: of those settings that are not given. Throws
/// ValueError if there are none.
std::vector<Range> default_ranges(const SearchSpace& space);

/// The settings of a trial, and those values that were drawn, in the order of the ranges.
struct Drawn {
  Settings settings;
  std::vector<std::pair<std::string, std::string>> values;
};

/// Draws different settings for each of the trials. The k-th draws from
/// `Rng(seed).stream("tune").stream(k)`, so it is the same in a search of any length. Throws
/// ValueError if a setting is both given and searched or has two ranges, if no text is left for
/// validation, if the settings of a trial contradict each other, and if there are fewer different
/// ones than trials.
std::vector<Drawn> draw(const SearchSpace& space, int trials);

/// The epochs of successive halving (Jamieson and Talwalkar, "Non-stochastic best arm
/// identification and hyperparameter optimization", AISTATS 2016) after which the better half of
/// the trials goes on: ..., epochs / 4, epochs / 2, epochs, rounded down, as many as there are
/// halvings of the trials and of the epochs to 1.
std::vector<int> rungs_of(int trials, int epochs);
/// How many of the trials of a rung go on: half, rounded up.
constexpr std::size_t kept_of(std::size_t trials) { return (trials + 1) / 2; }

}  // namespace reel::char_lm
