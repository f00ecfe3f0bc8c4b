#include <reel/datasets/normalization.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include <reel/autograd/error.h>

namespace reel::datasets {
namespace {

void require_real(const Tensor& x, Site site) {
  if (!x.defined()) throw ValueError("Normalization: the tensor is undefined", site);
  if (!is_real(x.dtype()))
    throw DTypeError("Normalization: the numbers are i32, not f32 or f64", site);
  if (x.rank() == 0) throw ShapeError("Normalization: a scalar has no features", site);
}

// Calls f(x, feature) for each number.
template <class T, class F>
void each_feature(std::span<T> numbers, std::size_t features, F f) {
  for (std::size_t i = 0; i < numbers.size(); ++i) f(numbers[i], i % features);
}

// f(number, mean, deviation) of all numbers.
template <class F>
Tensor mapped(const Tensor& x, const Normalization& by, Site site, F f) {
  require_real(x, site);
  const std::size_t features = by.mean().size();
  if (std::cmp_not_equal(x.size(-1), features))
    throw ShapeError(
        fmt::format("Normalization: x is {}, but there are {} features", x.shape().str(), features),
        site);
  Tensor result = x.copy();
  dispatch_real(x.dtype(), [&]<class T>() {
    each_feature(result.begin_update<T>(), features, [&](T& number, std::size_t i) {
      number = static_cast<T>(f(double{number}, by.mean()[i], by.deviation()[i]));
    });
  });
  return result;
}

}  // namespace

Normalization::Normalization(const Tensor& train, Site site) {
  require_real(train, site);
  const auto features = static_cast<std::size_t>(train.size(-1));
  if (train.size() == 0)
    throw ValueError(fmt::format("Normalization: there are no numbers in {}", train.shape().str()),
                     site);
  const Index vectors = train.size() / train.size(-1);
  const auto count = static_cast<double>(vectors);
  mean_.assign(features, 0);
  deviation_.assign(features, 0);
  dispatch_real(train.dtype(), [&]<class T>() {
    const std::span<const T> numbers = train.values<T>();
    if (!std::ranges::all_of(numbers, [](T x) { return std::isfinite(x); }))
      throw ValueError("Normalization: a number is not finite", site);
    // Sums of differences from the first row, which are 0 for a constant.
    each_feature(numbers, features, [&](T x, std::size_t i) {
      mean_[i] += (static_cast<double>(x) - static_cast<double>(numbers[i])) / count;
    });
    for (std::size_t i = 0; i < features; ++i) mean_[i] += static_cast<double>(numbers[i]);
    each_feature(numbers, features, [&](T x, std::size_t i) {
      const double difference = x - mean_[i];
      deviation_[i] += difference * difference / count;
    });
    for (std::size_t i = 0; i < features; ++i) {
      deviation_[i] = std::sqrt(deviation_[i]);
      // What is left of a constant are rounding errors of its mean.
      const double rounding = 1e-14 * std::abs(mean_[i]);
      if (deviation_[i] <= rounding) deviation_[i] = 1;
    }
  });
}

Normalization::Normalization(std::vector<double> mean, std::vector<double> deviation, Site site)
    : mean_(std::move(mean)), deviation_(std::move(deviation)) {
  const auto is_finite = [](double x) { return std::isfinite(x); };
  if (mean_.size() != deviation_.size() || mean_.empty() ||
      !std::ranges::all_of(mean_, is_finite) || !std::ranges::all_of(deviation_, is_finite) ||
      !std::ranges::all_of(deviation_, [](double x) { return x > 0; }))
    throw ValueError(fmt::format("Normalization: {} means and {} deviations have to be equally "
                                 "many, at least one, finite, and the deviations positive",
                                 mean_.size(), deviation_.size()),
                     site);
}

Tensor Normalization::apply(const Tensor& x, Site site) const {
  return mapped(x, *this, site,
                [](double x, double mean, double deviation) { return (x - mean) / deviation; });
}

Tensor Normalization::invert(const Tensor& y, Site site) const {
  return mapped(y, *this, site,
                [](double y, double mean, double deviation) { return y * deviation + mean; });
}

}  // namespace reel::datasets
