#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "../examples/support/chart.h"

using namespace reel::html;

namespace {

Chart logarithmic(const std::vector<Point>& points) {
  return {.id = "c",
          .title = "Gradients",
          .caption = "",
          .x = "steps",
          .y = "norm",
          .curves = {{"layer", points}},
          .logarithmic = true};
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
  return n;
}

}  // namespace

TEST_CASE("a logarithmic axis has round powers of ten, however small") {
  const std::string svg = picture(logarithmic({{0, 1}, {1, 3e-30}, {2, 1e-60}}));
  for (const char* tick : {">1<", ">1e-10<", ">1e-20<", ">1e-50<", ">1e-60<"})
    CHECK_MESSAGE(svg.find(tick) != std::string::npos, tick);
  CHECK(count(svg, "class=\"grid\"") == 7);
  CHECK(count(svg, ",inf") + count(svg, "nan") == 0);
}

TEST_CASE("a logarithmic axis leaves out zeros, and the table has them") {
  const Chart chart = logarithmic({{0, 1}, {1, 1e-3}, {2, 0}, {3, 1e-2}, {4, 1}, {5, 0}});
  const std::string svg = picture(chart);
  CHECK(count(svg, "<polyline") == 3);  // two parts of the line, and the one of the legend
  CHECK(count(svg, ">1e-3<") + count(svg, ">0.001<") == 1);
  CHECK(svg.find("inf") == std::string::npos);
  CHECK(figure(chart).find("<td>0</td>") != std::string::npos);
}

TEST_CASE("without positive values, or with negative ones, an axis is linear") {
  for (const double other : {0.0, -1e3}) {
    const std::string svg = picture(logarithmic({{0, 0}, {1, other}, {2, other < 0 ? 1e3 : 0}}));
    CHECK(svg.find("logarithmic") == std::string::npos);
    CHECK(svg.find("nan") == std::string::npos);
    CHECK(count(svg, "<polyline") == 2);
  }
}
