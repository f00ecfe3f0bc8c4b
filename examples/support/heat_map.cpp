#include "heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <reel/autograd/error.h>

#include "html.h"

namespace reel::html {

std::string picture(const HeatMap& map) {
  const auto rows = std::ssize(map.rows), columns = std::ssize(map.columns);
  if (map.values.shape() != Shape{rows, columns})
    throw ShapeError(fmt::format("{}: values {} for {} rows and {} columns", map.title,
                                 map.values.shape().str(), rows, columns),
                     Site());
  constexpr double cell = 22, left = 90, top = 66;
  std::string svg =
      fmt::format("<text class=\"title\" x=\"8\" y=\"22\">{}</text>\n", escaped(map.title));
  const auto name = [&](double x, double y, const char* anchor, const std::string& text) {
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                       escaped(text));
  };
  for (Index c = 0; c < columns; ++c)
    name(left + (static_cast<double>(c) + 0.5) * cell, top - 6, "middle",
         map.columns[static_cast<std::size_t>(c)]);
  const std::vector<double> values = map.values.to_vector();
  for (Index r = 0; r < rows; ++r) {
    const double y = top + static_cast<double>(r) * cell;
    name(left - 6, y + 15, "end", map.rows[static_cast<std::size_t>(r)]);
    for (Index c = 0; c < columns; ++c) {
      const double value = std::clamp(values[static_cast<std::size_t>(r * columns + c)], 0.0, 1.0);
      // From white to the blue of the charts.
      const auto shade = [&](int dark) { return std::lround(255 + value * (dark - 255)); };
      svg += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"rgb({} {} {})\"><title>{:.3f}"
          "</title></rect>\n",
          left + static_cast<double>(c) * cell, y, cell, cell, shade(11), shade(87), shade(208),
          value);
    }
  }
  return svg_file(left + static_cast<double>(columns) * cell + 20,
                  top + static_cast<double>(rows) * cell + 20, svg);
}

}  // namespace reel::html
