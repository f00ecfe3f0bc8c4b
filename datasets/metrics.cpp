#include <reel/datasets/metrics.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <reel/autograd/error.h>
#include <reel/datasets/counted.h>

namespace reel::datasets {
namespace {

std::vector<bool> is_masked(const Tensor& mask) {
  std::vector<bool> masked;
  masked.reserve(static_cast<std::size_t>(mask.size()));
  dispatch(mask.dtype(), [&]<class T>() {
    for (const T x : mask.values<T>()) masked.push_back(x == 0);
  });
  return masked;
}

}  // namespace

std::vector<Counted> counted(const char* call, const Tensor& targets, const Tensor& predictions,
                             const Ignored& ignored, Site site) {
  const auto t = targets.values<std::int32_t>(site), p = predictions.values<std::int32_t>(site);
  const auto require_shape = [&](const char* name, const Tensor& x) {
    if (x.shape() != targets.shape())
      throw ShapeError(fmt::format("{}: targets are {}, but {} {}", call, targets.shape().str(),
                                   name, x.shape().str()),
                       site);
  };
  require_shape("predictions are", predictions);
  std::vector<bool> masked(t.size());
  if (ignored.mask.defined()) {
    require_shape("the mask is", ignored.mask);
    masked = is_masked(ignored.mask);
  }
  std::vector<Counted> positions;
  positions.reserve(t.size());
  for (std::size_t i = 0; i < t.size(); ++i)
    if (!masked[i] && ignored.ignore_index != t[i]) positions.push_back({t[i], p[i]});
  return positions;
}

double accuracy(const Tensor& targets, const Tensor& predictions, const Ignored& ignored,
                Site site) {
  const auto positions = counted("accuracy", targets, predictions, ignored, site);
  if (positions.empty()) throw ValueError("accuracy: no position counts", site);
  const auto right =
      std::ranges::count_if(positions, [](const Counted& c) { return c.target == c.prediction; });
  return static_cast<double>(right) / static_cast<double>(positions.size());
}

double perplexity(Arg<double> nats) { return std::exp(nats); }

double bits(Arg<double> nats) { return nats / std::numbers::ln2; }

}  // namespace reel::datasets
