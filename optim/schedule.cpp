#include <reel/optim/schedule.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include <reel/autograd/error.h>

namespace reel::optim {
namespace {
void require(bool ok, std::string_view schedule, std::string_view what, double value,
             std::string_view range) {
  if (!ok)
    throw ValueError(fmt::format("{}: {} is {}, but has to be {}", schedule, what, value, range));
}

void require_common(std::string_view schedule, double learning_rate, double factor, int epoch) {
  const auto is_setting = [](double x) { return x >= 0 && std::isfinite(x); };
  require(is_setting(learning_rate), schedule, "learning_rate", learning_rate,
          "a finite number >= 0");
  require(is_setting(factor), schedule, "factor", factor, "a finite number >= 0");
  require(epoch >= 1, schedule, "epoch", epoch, "1 or more");
}
}  // namespace

double ExponentialDecay::at(int epoch) const {
  require_common("ExponentialDecay", learning_rate, factor, epoch);
  return learning_rate * std::pow(factor, std::max(0, epoch - std::max(after, 1)));
}

double StepDecay::at(int epoch) const {
  require_common("StepDecay", learning_rate, factor, epoch);
  require(every >= 1, "StepDecay", "every", every, "1 or more");
  return learning_rate * std::pow(factor, (epoch - 1) / every);
}

}  // namespace reel::optim
