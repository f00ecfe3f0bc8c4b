#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

/// Line charts, drawn in SVG: as figures of HTML, with title and description, a legend, a caption,
/// and the numbers in a table that opens; or as files.
namespace reel::html {

struct Point {
  double x = 0, y = 0;
};

/// A line. Its colour, dashes and marks are those of its place among the curves of the chart.
struct Curve {
  std::string name;
  std::vector<Point> points;  ///< x ascends; those not below 1e30 are left out
  bool raw = false;           ///< thin, in the style of the curve after it, and without marks
};

struct Chart {
  std::string id;       ///< unique on the page
  std::string title;    ///< "Loss"
  std::string caption;  ///< what is shown, in a sentence
  std::string x, y;     ///< the axes with their units: "step", "nats per character"
  std::vector<Curve> curves;
  /// y, if none is negative and the positive ones span more than a factor of 20. Zeros are then
  /// interruptions of the line; the table of a figure has them.
  bool logarithmic = false;
  double right_factor = 0;  ///< the right axis shows y times this, in `right`; 0: there is none
  std::string right = {};
  std::optional<Point> best = {};  ///< marked by a star
};

/// More curves have no styles that can be told apart without colour.
constexpr std::size_t most_curves = 24;

/// A figure; empty without a point to draw.
std::string figure(const Chart& given);

/// A line through (x, y[0]), (x + 1, y[1]), ...
Curve curve(std::string name, std::span<const double> y, double x = 0, bool raw = false);

/// The chart as a file of SVG, with title and legend; an id is not needed. Throws ValueError
/// without a point to draw.
std::string picture(const Chart& given);

/// At most `most` + 1 of the points, evenly spread, the first and the last among them.
std::vector<Point> thinned(const std::vector<Point>& points, std::size_t most);

}  // namespace reel::html
