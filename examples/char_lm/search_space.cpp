#include "search_space.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <type_traits>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/autograd/rng.h>

namespace reel::char_lm {
namespace {

// Why a setting is the same in all trials.
const std::map<std::string_view, std::string_view> not_searched = {
    {"epochs", "it is the length of the search"},
    {"seed", "what a seed changes is chance"},
    {"bytes", "losses of different symbols cannot be compared"},
    {"level", "losses of different symbols cannot be compared"},
    {"min-count", "losses of different symbols cannot be compared"},
    {"vocabulary-size", "losses of different symbols cannot be compared"},
    {"normalize", "losses on different texts cannot be compared"},
    {"train-frac", "losses on different texts cannot be compared"},
    {"test-frac", "losses on different texts cannot be compared"},
    {"save-every", "it does not change what is learnt"},
    {"keep", "it does not change what is learnt"},
};

template <class F>
void with_setting(Settings& settings, std::string_view name, F&& f) {
  each_setting(settings, [&](const Setting& setting, auto& value) {
    if (setting.name == name) f(setting, value);
  });
}

void assign(Settings& settings, std::string_view name, const std::string& text) {
  with_setting(settings, name,
               [&](const Setting& setting, auto& value) { assign(setting, text, value); });
}

void require_searchable(std::string_view name) {
  std::vector<std::string> names;
  const Settings settings;
  each_setting(settings, [&](const Setting& setting, const auto&) {
    if (!not_searched.contains(setting.name)) names.emplace_back(setting.name);
  });
  if (const auto found = not_searched.find(name); found != not_searched.end())
    throw ValueError(fmt::format("{} cannot be searched: {}", name, found->second));
  if (std::ranges::find(names, name) == names.end())
    throw ValueError(
        fmt::format("{} is no setting of train{}", in_quotes(name), suggestion(name, names)));
}

void require_space(const SearchSpace& space) {
  std::set<std::string> searched;
  for (const Range& range : space.ranges) {
    if (space.given.contains(range.name()))
      throw ValueError(fmt::format(
          "{0} is fixed by --{0} and searched by --over {0}; leave out one of them", range.name()));
    if (!searched.insert(range.name()).second)
      throw ValueError(
          fmt::format("--over {} is given twice; leave out one of them", range.name()));
  }
  if (!has_validation(space.fixed))
    throw ValueError(fmt::format(
        "a search compares validation losses, but {} leaves no text for them; give less",
        parts_in_words(space.fixed)));
}

Drawn drawn_at(const SearchSpace& space, const Rng& trial, std::uint64_t attempt) {
  Drawn drawn{.settings = space.fixed, .values = {}};
  std::set<std::string> given = space.given;
  for (const Range& range : space.ranges) given.insert(range.name());
  forget_completed(drawn.settings, given);
  for (const Range& range : space.ranges) {
    Rng rng = trial.stream(range.name());
    rng.skip(attempt);
    drawn.values.emplace_back(range.name(), range.at(rng.uniform()));
    assign(drawn.settings, range.name(), drawn.values.back().second);
  }
  complete(drawn.settings, given);
  require_consistent(drawn.settings, given);
  return drawn;
}

}  // namespace

void forget_completed(Settings& settings, const std::set<std::string>& given) {
  each_setting(settings, [&](const Setting& setting, auto& value) {
    if (!setting.otherwise.empty() && !given.contains(std::string(setting.name))) value = {};
  });
}

Range::Range(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos)
    throw ValueError(
        fmt::format("{} is not of the form SETTING=A..B or SETTING=A,B,C", in_quotes(text)));
  name_ = text.substr(0, equals);
  values_ = text.substr(equals + 1);
  require_searchable(name_);
  const std::size_t dots = values_.find("..");
  if (dots == std::string::npos)
    read_choice();
  else
    read_bounds(std::string_view(values_).substr(0, dots),
                std::string_view(values_).substr(dots + 2));
}

void Range::read_bounds(std::string_view low, std::string_view high) {
  Settings bound;
  with_setting(bound, name_, [&]<class T>(const Setting& setting, T& value) {
    if constexpr (std::is_same_v<T, int> || std::is_same_v<T, double>) {
      is_whole_ = std::is_same_v<T, int>;
      char_lm::assign(setting, std::string(low), value);
      low_ = value;
      char_lm::assign(setting, std::string(high), value);
      high_ = value;
    } else {
      refuse(setting, in_quotes(values_));
    }
  });
  if (!(low_ < high_))
    throw ValueError(
        fmt::format("{} from {} to {} is an empty range; the first number has to be below the "
                    "second",
                    name_, low, high));
}

void Range::read_choice() {
  Settings value;
  for (std::string_view rest = values_;;) {
    const std::size_t end = rest.find_first_of("|,");
    choice_.emplace_back(rest.substr(0, end));
    assign(value, name_, choice_.back());
    if (std::ranges::count(choice_, choice_.back()) > 1)
      throw ValueError(
          fmt::format("{} has {} twice; leave out one of them", name_, choice_.back()));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  if (choice_.size() == 1)
    throw ValueError(
        fmt::format("{0} has the value {1} alone; give --{0} {1}, or more values: {0}=A,B or "
                    "{0}=A..B",
                    name_, choice_.front()));
}

std::string_view Range::distribution() const {
  if (!choice_.empty()) return "a choice";
  return low_ > 0 ? "log-uniform" : "uniform";
}

std::string Range::at(double u) const {
  if (!choice_.empty())
    return choice_[static_cast<std::size_t>(u * static_cast<double>(choice_.size()))];
  const double end =
      is_whole_ ? high_ + 1 : high_;  // a whole number has the interval up to the next
  const double x = low_ > 0 ? low_ * std::pow(end / low_, u) : low_ + (end - low_) * u;
  if (is_whole_) return fmt::format("{:.0f}", std::clamp(std::floor(x), low_, high_));
  // More digits where the range is narrow, such as that of a rate near 1.
  const auto more = static_cast<int>(std::log10(high_ / (high_ - low_)));
  const std::string rounded = fmt::format("{:.{}g}", x, std::min(3 + more, 17));
  return fmt::format("{}", std::clamp(std::strtod(rounded.c_str(), nullptr), low_, high_));
}

std::vector<Range> default_ranges(const SearchSpace& space) {
  std::vector<Range> ranges;
  for (const char* text : {"lr=5e-4..2e-2", "dropout=0..0.5", "clip=0.5..10"}) {
    Range range(text);
    // Dropout acts between layers; a limit of the elements takes the place of one of the norm.
    const bool acts = range.name() == "dropout" ? space.fixed.layers > 1
                      : range.name() == "clip"  ? space.fixed.clip_value == 0
                                                : true;
    if (acts && !space.given.contains(range.name())) ranges.push_back(std::move(range));
  }
  if (ranges.empty())
    throw ValueError("nothing is left to search; give a range, such as --over hidden=64..512");
  return ranges;
}

std::vector<Drawn> draw(const SearchSpace& space, int trials) {
  require_space(space);
  const Rng rng = Rng(space.fixed.seed).stream("tune");
  std::set<std::vector<std::pair<std::string, std::string>>> seen;
  std::vector<Drawn> all;
  constexpr std::uint64_t most_attempts = 1000;
  for (int k = 1; k <= trials; ++k) {
    const Rng trial = rng.stream(std::to_string(k));
    for (std::uint64_t attempt = 0; std::ssize(all) < k; ++attempt) {
      if (attempt == most_attempts)
        throw ValueError(
            fmt::format("trials is {}, but only {} different ones were found in the ranges; give "
                        "fewer --trials, or wider ranges",
                        trials, all.size()));
      Drawn drawn = drawn_at(space, trial, attempt);
      if (seen.insert(drawn.values).second) all.push_back(std::move(drawn));
    }
  }
  return all;
}

std::vector<int> rungs_of(int trials, int epochs) {
  std::vector<int> rungs{epochs};
  for (auto left = static_cast<std::size_t>(trials); left > 1 && rungs.back() > 1;
       left = kept_of(left))
    rungs.push_back(epochs >> rungs.size());
  std::ranges::reverse(rungs);
  return rungs;
}

}  // namespace reel::char_lm
