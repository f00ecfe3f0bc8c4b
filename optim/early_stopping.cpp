#include <reel/optim/early_stopping.h>

#include <fmt/format.h>

#include <cmath>

namespace reel::optim {
namespace {

constexpr const char* best_key = "early_stopping.best";
constexpr const char* since_key = "early_stopping.since_best";

}  // namespace

EarlyStopping::EarlyStopping(const EarlyStoppingOptions& options, Site site) : options_(options) {
  if (options.patience < 1)
    throw ValueError(
        fmt::format("EarlyStopping: patience is {}, but has to be positive", options.patience),
        site);
  if (!(options.min_delta >= 0 && std::isfinite(options.min_delta)))
    throw ValueError(
        fmt::format("EarlyStopping: min_delta is {}, but has to be a finite number >= 0",
                    options.min_delta),
        site);
}

bool EarlyStopping::update(Arg<double> value) {
  const auto improves = [&] {
    if (!std::isfinite(value)) return false;
    if (!best_) return true;
    const double by = options_.better == Better::smaller ? *best_ - value : value - *best_;
    return by > options_.min_delta;
  };
  const bool is_best = improves();
  if (is_best) best_ = value;
  since_best_ = is_best ? 0 : since_best_ + 1;
  return is_best;
}

std::map<std::string, double, std::less<>> EarlyStopping::numbers() const {
  std::map<std::string, double, std::less<>> numbers{{since_key, static_cast<double>(since_best_)}};
  if (best_) numbers[best_key] = *best_;
  return numbers;
}

void EarlyStopping::restore(const std::map<std::string, double, std::less<>>& numbers, Site site) {
  const auto best = numbers.find(best_key), since = numbers.find(since_key);
  constexpr double most = 1e15;  // as an integer in a double
  if (since == numbers.end())
    throw ValueError(fmt::format("EarlyStopping: there is no number {}", since_key), site);
  if (!(since->second >= 0 && since->second <= most) || since->second != std::floor(since->second))
    throw ValueError(
        fmt::format("EarlyStopping: {} is {}, which is no count", since_key, since->second), site);
  if (best != numbers.end() && !std::isfinite(best->second))
    throw ValueError(
        fmt::format("EarlyStopping: {} is {}, but has to be finite", best_key, best->second), site);
  best_ = best == numbers.end() ? std::nullopt : std::optional(best->second);
  since_best_ = static_cast<Index>(since->second);
}

}  // namespace reel::optim
