#include "series_data.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <reel/autograd/error.h>
#include <reel/autograd/ops.h>
#include <reel/datasets/series.h>

namespace reel::examples {
namespace {

constexpr std::size_t steps = 10000;

std::vector<float> seasonal(Rng& rng) {
  std::vector<float> values(steps);
  for (std::size_t t = 0; t < steps; ++t) {
    const double time_of_day = std::numbers::pi * static_cast<double>(t % 8) / 4;
    const double height = t / 8 % 7 < 5 ? 1 : 0.3;
    values[t] = static_cast<float>(height * std::exp(std::sin(time_of_day)) +
                                   1e-4 * static_cast<double>(t) + 0.3 * rng.normal());
  }
  return values;
}

std::vector<float> chaotic(Rng& rng) {
  constexpr std::size_t delay = 170, warm_up = 3000, stride = 30;  // of steps of 0.1
  std::vector<double> x(delay, 1.2);
  std::vector<float> values;
  while (values.size() < steps) {
    const double before = x[x.size() - delay];
    x.push_back(x.back() + 0.1 * (0.2 * before / (1 + std::pow(before, 10)) - 0.1 * x.back()));
    if (x.size() > warm_up && x.size() % stride == 0)
      values.push_back(static_cast<float>(x.back() + 0.03 * rng.normal()));
  }
  return values;
}

}  // namespace

Tensor generated_series(std::string_view name, Rng& rng) {
  return tensor({steps, 1}, name == "seasonal" ? seasonal(rng) : chaotic(rng));
}

Tensor read_column(const std::string& path, const std::string& column) {
  const std::vector<std::string> columns(column.empty() ? 0 : 1, column);
  const datasets::Series series = datasets::read_series(path, {.columns = columns});
  if (series.columns.size() != 1)
    throw ValueError(fmt::format("{} has the columns {}: give one of them as --column", path,
                                 fmt::join(series.columns, ", ")));
  return series.values;
}

SeriesPart::SeriesPart(Tensor series, Index begin, Index end, Index window, Index horizon)
    : series_(std::move(series)),
      begin_(std::max(begin, window)),
      end_(end),
      window_(window),
      horizon_(horizon) {
  if (count() < 20)
    throw ValueError(fmt::format(
        "a part of the series, the steps {} to {} of {}, has fewer than 20 windows of {} steps and "
        "{} that follow: give a longer series, or smaller ones",
        begin, end - 1, series_.size(0), window, horizon));
}

SeriesWindows SeriesPart::spread(Index most) const {
  const Index n = std::min(most, count());
  std::vector<std::int32_t> places;
  for (Index i = 0; i < n; ++i) places.push_back(static_cast<std::int32_t>(i * count() / n));
  return at(places);
}

SeriesWindows SeriesPart::draw(Index rows, Rng& rng) const {
  std::vector<std::int32_t> places;
  for (Index i = 0; i < rows; ++i)
    places.push_back(static_cast<std::int32_t>(rng.integer(count())));
  return at(places);
}

SeriesWindows SeriesPart::at(const std::vector<std::int32_t>& places) const {
  const Tensor first = tensor({static_cast<Index>(places.size())}, places) + (begin_ - window_);
  const Tensor x = gather_rows(series_, expand(arange(window_ + horizon_), 1) + first);
  return {slice(x, 0, 0, window_), slice(x, 0, window_, window_ + horizon_)};
}

}  // namespace reel::examples
