#include "forecasts.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <span>

#include <reel/autograd/matrix.h>
#include <reel/autograd/ops.h>
#include <reel/nn/files/atomic_file.h>

#include "chart.h"

namespace reel::examples {

Tensor missing_width(const Tensor& quantiles, const Tensor& future, double share) {
  const Tensor outside =
      maximum(slice(quantiles, 2, 0, 1) - future,
              future - slice(quantiles, 2, quantiles.size(2) - 1, quantiles.size(2)));
  const Index n = outside.size(1);
  const auto rank = static_cast<Index>(std::ceil(share * static_cast<double>(n + 1)));
  return slice(sort(outside, 1).values, 1, std::min(rank, n) - 1, std::min(rank, n));
}

Tensor linear_forecast(const SeriesWindows& known, const Tensor& past) {
  const auto rows = [](const Tensor& x) { return transpose(squeeze(x, 2)).to(f64); };
  const auto with_one = [&](const Tensor& x) {
    return concat({rows(x), ones({x.size(1), 1}, f64)}, 1);
  };
  const Tensor a = with_one(known.past), b = rows(known.future);
  const double least = 1e-6 * static_cast<double>(a.size(0));  // for windows that are all alike
  const Tensor squares = matmul(a, a, true) + least * eye(a.size(1), f64);
  const Eigen::MatrixXd w =
      matrix<double>(squares).llt().solve(matrix<double>(matmul(a, b, true)).eval());
  const Tensor weights =
      tensor({w.cols(), w.rows()}, std::span(w.data(), static_cast<std::size_t>(w.size())), f64);
  return expand(matmul(weights, with_one(past), false, true), 2).to(past.dtype());
}

void draw_forecast(const std::string& path, const SeriesWindows& windows, const Tensor& quantiles) {
  html::Chart chart;
  chart.title = "Forecast";
  chart.x = "step";
  chart.y = "value";
  const auto add = [&](const std::string& name, const Tensor& values, Index begin, bool thin) {
    chart.curves.push_back(html::curve(name, values.to_vector(), static_cast<double>(begin), thin));
  };
  const auto last = [](const Tensor& x, Index i) { return select(select(x, 2, i), 1, -1); };
  const Index end = windows.past.size(0);
  add("seen", last(windows.past, 0), 0, false);
  add("what followed", last(windows.future, 0), end, false);
  add("interval: from", last(quantiles, 0), end, true);
  add("interval: to", last(quantiles, 2), end, true);
  add("median", last(quantiles, 1), end, false);
  nn::write_file(path, html::picture(chart));
}

}  // namespace reel::examples
