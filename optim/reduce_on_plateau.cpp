#include <reel/optim/reduce_on_plateau.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace reel::optim {

ReduceOnPlateau::ReduceOnPlateau(const ReduceOnPlateauOptions& options, Site site)
    : options_(options) {
  const auto require = [&](bool ok, const char* name, auto value, const char* range) {
    if (!ok)
      throw ValueError(
          fmt::format("ReduceOnPlateau: {} is {}, but has to be {}", name, value, range), site);
  };
  require(options.factor >= 0 && options.factor < 1, "factor", options.factor, "in [0, 1)");
  require(options.patience >= 0, "patience", options.patience, "0 or more");
  require(options.threshold >= 0 && std::isfinite(options.threshold), "threshold",
          options.threshold, "a finite number >= 0");
  require(options.cooldown >= 0, "cooldown", options.cooldown, "0 or more");
  require(options.least_factor >= 0 && options.least_factor <= 1, "least_factor",
          options.least_factor, "in [0, 1]");
}

bool ReduceOnPlateau::update(Arg<double> loss) {
  const double limit = std::isfinite(best_) ? best_ - options_.threshold * std::abs(best_) : best_;
  if (loss < limit) {
    best_ = loss;
    bad_ = 0;
  } else {
    ++bad_;
  }
  if (cooling_ > 0) {
    --cooling_;
    bad_ = 0;
  }
  if (bad_ <= options_.patience) return false;
  const double before = factor_;
  factor_ = std::max(factor_ * options_.factor, options_.least_factor);
  cooling_ = options_.cooldown;
  bad_ = 0;
  return factor_ < before;
}

nn::NamedTensors ReduceOnPlateau::state() const {
  nn::NamedTensors state;
  state.tensors["plateau.factor"] = scalar(factor_, f64);
  state.tensors["plateau.best"] = scalar(best_, f64);
  state.tensors["plateau.bad"] = scalar(static_cast<double>(bad_), f64);
  state.tensors["plateau.cooling"] = scalar(static_cast<double>(cooling_), f64);
  return state;
}

void ReduceOnPlateau::restore(const nn::NamedTensors& state, Site site) {
  const double factor = nn::number_in(state, "plateau.factor", 0, 1, site);
  const double infinite = std::numeric_limits<double>::infinity();
  const double best = nn::number_in(state, "plateau.best", -infinite, infinite, site);
  const Index bad = nn::count_in(state, "plateau.bad", site);
  cooling_ = nn::count_in(state, "plateau.cooling", site);  // the last that may throw
  factor_ = factor;
  best_ = best;
  bad_ = bad;
}

}  // namespace reel::optim
