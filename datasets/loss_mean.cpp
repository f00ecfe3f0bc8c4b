#include <reel/datasets/loss_mean.h>

#include <fmt/format.h>

#include <cmath>

#include <reel/datasets/metrics.h>

namespace reel::datasets {

LossMean::LossMean(Arg<double> sum, Arg<double> weight, Site site) : sum_(sum), weight_(weight) {
  if (!std::isfinite(sum_) || !std::isfinite(weight_) || weight_ < 0 || (weight_ == 0 && sum_ != 0))
    throw ValueError(
        fmt::format("LossMean: a sum of {} with weight {} is that of no losses", sum_, weight_),
        site);
}

void LossMean::add(Arg<double> loss, Arg<double> weight, Site site) {
  if (!(weight >= 0 && std::isfinite(weight)))
    throw ValueError(fmt::format("LossMean: the weight is {}, but has to be a finite number >= 0",
                                 double(weight)),
                     site);
  if (weight == 0) return;  // the mean of no positions may be NaN
  sum_ += weight * loss;
  weight_ += weight;
}

double LossMean::mean(Site site) const {
  if (weight_ == 0) throw ValueError("LossMean: there is no mean without losses", site);
  return sum_ / weight_;
}

double LossMean::perplexity(Site site) const { return datasets::perplexity(mean(site)); }

double LossMean::bits(Site site) const { return datasets::bits(mean(site)); }

}  // namespace reel::datasets
