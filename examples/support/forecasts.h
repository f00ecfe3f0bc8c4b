#pragma once

#include <string>

#include "series_data.h"

/// What a forecast of quantiles is completed by, and compared with.
namespace reel::examples {

/// How much wider the intervals between the first and the last quantile [H, B, Q] have to be on
/// both sides, at each step, to hold that share of what followed [H, B, 1]; below 0: narrower.
/// [H, 1, 1]. (Conformalised quantile regression, Romano, Patterson and Candes, 2019.)
Tensor missing_width(const Tensor& quantiles, const Tensor& future, double share);

/// The linear autoregression on a whole window that fits some windows by least squares, with a
/// function of its own for each step of the horizon: its forecast for others, [H, B, 1].
Tensor linear_forecast(const SeriesWindows& known, const Tensor& past);

/// Draws the last of the windows and its quantiles [H, B, 3] as a file of SVG.
void draw_forecast(const std::string& path, const SeriesWindows& windows, const Tensor& quantiles);

}  // namespace reel::examples
