#include <reel/optim/schedule.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include <reel/autograd/error.h>

namespace reel::optim {
namespace {
void require(bool ok, std::string_view schedule, std::string_view what, double value,
             std::string_view range, Site site) {
  if (!ok)
    throw ValueError(fmt::format("{}: {} is {}, but has to be {}", schedule, what, value, range),
                     site);
}

void require_common(std::string_view schedule, double learning_rate, double factor, int epoch,
                    Site site) {
  const auto is_setting = [](double x) { return x >= 0 && std::isfinite(x); };
  require(is_setting(learning_rate), schedule, "learning_rate", learning_rate,
          "a finite number >= 0", site);
  require(is_setting(factor), schedule, "factor", factor, "a finite number >= 0", site);
  require(epoch >= 1, schedule, "epoch", epoch, "1 or more", site);
}
}  // namespace

double ExponentialDecay::at(Arg<int> epoch, Site site) const {
  require_common("ExponentialDecay", learning_rate, factor, epoch, site);
  return learning_rate * std::pow(factor, std::max(0, epoch - std::max(after, 1)));
}

double StepDecay::at(Arg<int> epoch, Site site) const {
  require_common("StepDecay", learning_rate, factor, epoch, site);
  require(every >= 1, "StepDecay", "every", every, "1 or more", site);
  return learning_rate * std::pow(factor, (epoch - 1) / every);
}

}  // namespace reel::optim
