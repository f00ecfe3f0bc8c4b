#include <reel/optim/schedule.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

namespace reel::optim {
namespace {

// The checks of one call, which all name the schedule.
struct Checks {
  std::string_view schedule;
  Site site;

  template <class Number>
  void require(bool ok, std::string_view what, Number value, std::string_view range) const {
    if (!ok)
      throw ValueError(fmt::format("{}: {} is {}, but has to be {}", schedule, what, value, range),
                       site);
  }
  void not_negative(std::string_view what, double value) const {
    require(value >= 0 && std::isfinite(value), what, value, "a finite number >= 0");
  }
  void positive(std::string_view what, double value) const {
    require(value > 0 && std::isfinite(value), what, value, "a finite number > 0");
  }
  void count(std::string_view what, Index value) const {
    require(value >= 1, what, value, "1 or more");
  }
  void time(Index t) const { count("the step or epoch", t); }
  void time(Index t, Index length) const {
    time(t);
    count("length", length);
    if (t > length)
      throw ValueError(fmt::format("{}: it ends at {}, and was asked for {}; give it the length of "
                                   "the run",
                                   schedule, length, t),
                       site);
  }
};

// Half a wave from 1 to 0, for e from 0 to 1.
double cosine(double e) { return (1 + std::cos(std::numbers::pi * e)) / 2; }

double between(double from, double to, double e) { return to + (from - to) * cosine(e); }

double ratio(Index a, Index b) { return static_cast<double>(a) / static_cast<double>(b); }

}  // namespace

double ExponentialDecay::at(Arg<Index> t, Site site) const {
  const Checks checks{"ExponentialDecay", site};
  checks.time(t);
  checks.not_negative("learning_rate", learning_rate);
  checks.not_negative("factor", factor);
  const Index exponent = std::max<Index>(0, t - std::max(after, 1));
  return learning_rate * std::pow(factor, static_cast<double>(exponent));
}

double StepDecay::at(Arg<Index> t, Site site) const {
  const Checks checks{"StepDecay", site};
  checks.time(t);
  checks.not_negative("learning_rate", learning_rate);
  checks.not_negative("factor", factor);
  checks.count("every", every);
  const Index times = (t - 1) / every;
  return learning_rate * std::pow(factor, static_cast<double>(times));
}

double PolynomialDecay::at(Arg<Index> t, Site site) const {
  const Checks checks{"PolynomialDecay", site};
  checks.time(t, length);
  checks.not_negative("learning_rate", learning_rate);
  checks.not_negative("least", least);
  checks.not_negative("power", power);
  return least + (learning_rate - least) * std::pow(1 - ratio(t - 1, length), power);
}

double CosineDecay::at(Arg<Index> t, Site site) const {
  const Checks checks{"CosineDecay", site};
  checks.not_negative("learning_rate", learning_rate);
  checks.not_negative("least", least);
  checks.count("growth", growth);
  checks.count("length", length);
  restarts ? checks.time(t) : checks.time(t, length);
  Index begin = 0, period = length;
  while (growth > 1 && t - 1 - begin >= period) {
    begin += period;
    period *= growth;
  }
  return between(learning_rate, least, ratio((t - 1 - begin) % period, period));
}

double OneCycle::at(Arg<Index> t, Site site) const {
  const Checks checks{"OneCycle", site};
  checks.time(t, length);
  checks.not_negative("learning_rate", learning_rate);
  checks.require(rise >= 0 && rise <= 1, "rise", rise, "in [0, 1]");
  checks.positive("start_divisor", start_divisor);
  checks.positive("end_divisor", end_divisor);
  const double first = learning_rate / start_divisor, last = first / end_divisor;
  const double now = static_cast<double>(t - 1), end = static_cast<double>(length - 1);
  const double top = rise * static_cast<double>(length) - 1;
  if (now <= top) return between(first, learning_rate, top > 0 ? now / top : 1);
  return between(learning_rate, last, end > top ? (now - top) / (end - top) : 1);
}

Schedule::Schedule(double learning_rate, Site site) {
  Checks{"Schedule", site}.not_negative("learning_rate", learning_rate);
  at_ = [learning_rate](Index t, Site where) {
    Checks{"Schedule", where}.time(t);
    return learning_rate;
  };
}

void Schedule::require_length(Arg<Index> steps, Site site) const {
  if (length_ && *length_ != steps)
    throw ValueError(fmt::format("the schedule of the learning rate is of {} steps, but the run of "
                                 "{}; give both the same length",
                                 *length_, Index{steps}),
                     site);
}

double Warmup::at(Arg<Index> t, Site site) const {
  const Checks checks{"Warmup", site};
  checks.time(t);
  checks.count("steps", steps);
  return t <= steps ? then.at(1, site) * ratio(t, steps) : then.at(t - steps, site);
}

std::optional<Index> Warmup::length() const {
  return then.length() ? std::optional(steps + *then.length()) : std::nullopt;
}

double Sequence::at(Arg<Index> t, Site site) const {
  const Checks checks{"Sequence", site};
  checks.time(t);
  Index left = t;
  for (const auto& [steps, schedule] : parts) {
    checks.count("the length of a part", steps);
    if (left <= steps) return schedule.at(left, site);
    left -= steps;
  }
  return last.at(left, site);
}

std::optional<Index> Sequence::length() const {
  std::optional<Index> total = last.length();
  for (const Part& part : parts)
    if (total) *total += part.steps;
  return total;
}

double ByEpoch::at(Arg<Index> t, Site site) const {
  const Checks checks{"ByEpoch", site};
  checks.time(t);
  checks.count("the steps of an epoch", steps);
  return epochs.at(1 + (t - 1) / steps, site);
}

std::optional<Index> ByEpoch::length() const {
  return epochs.length() ? std::optional(steps * *epochs.length()) : std::nullopt;
}

}  // namespace reel::optim
