#include "chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include <reel/autograd/error.h>

#include "html.h"
#include "spread.h"

namespace reel::html {
namespace {

// The area of a chart within its picture.
constexpr double width = 480, height = 280, left = 58, top = 12, bottom = 238;
constexpr std::size_t most_points = 600, most_rows = 50;

constexpr const char* dashes[] = {"none", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2"};
constexpr std::size_t colours = std::size(dashes), shapes = most_curves / colours;

std::string short_number(double x) { return fmt::format("{:.6g}", x == 0 ? 0.0 : x); }

// The least of 1, 2, 5, 10, 20 ... that divides a length into at most that many parts.
double step_of(double length, double parts) {
  const double unit = std::pow(10, std::floor(std::log10(length / parts)));
  const double wanted = length / parts / unit;
  return unit * (wanted <= 1 ? 1 : wanted <= 2 ? 2 : wanted <= 5 ? 5 : 10);
}

// From a value to a coordinate, and which values have a tick.
class Axis {
 public:
  Axis(double low, double high, double begin, double end, bool logarithmic)
      : begin_(begin), end_(end), log_(logarithmic) {
    if (!log_) {
      const double largest = std::max(std::abs(low), std::abs(high));
      if (!(high - low > 1e-9 * largest)) {
        const double margin = largest < 1e-30 ? 1 : largest * 0.1;
        low -= margin;
        high += margin;
      }
      step_ = step_of(high - low, 4);
    }
    low_ = place(low);
    high_ = place(high);
  }

  double operator()(double value) const {
    return begin_ + (place(value) - low_) / (high_ - low_) * (end_ - begin_);
  }
  // Of values times `factor`, as multiples of a round number; at most 12.
  std::vector<double> ticks() const {
    std::vector<double> values;
    if (log_) {
      const double unit = std::max(1.0, step_of(high_ - low_, 8));  // of the power of ten
      for (double p = std::ceil(low_ / unit) * unit; p <= high_; p += unit)
        values.push_back(std::pow(10, p));
      return values;
    }
    const double first = std::ceil(low_ / step_ - 1e-9);
    for (int i = 0; i < 12 && (first + i) * step_ <= high_ + 1e-9 * step_; ++i)
      values.push_back((first + i) * step_);
    return values;
  }

 private:
  double place(double value) const { return log_ ? std::log10(value) : value; }

  double begin_, end_, low_ = 0, high_ = 1, step_ = 1;
  bool log_;
};

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// A mark around a point: circle, square, triangle or diamond.
std::string mark(std::size_t shape, double x, double y, const std::string& classes) {
  constexpr double r = 3.5;
  if (shape == 0)
    return fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"/>", classes, x, y,
                       r);
  const std::vector<Point> corners =
      shape == 1   ? std::vector<Point>{{-r, -r}, {r, -r}, {r, r}, {-r, r}}
      : shape == 2 ? std::vector<Point>{{0, -r - 1}, {r + 1, r}, {-r - 1, r}}
                   : std::vector<Point>{{0, -r - 1}, {r + 1, 0}, {0, r + 1}, {-r - 1, 0}};
  std::string points;
  for (const Point& p : corners) points += fmt::format("{:.1f},{:.1f} ", x + p.x, y + p.y);
  points.pop_back();
  return fmt::format("<polygon class=\"{}\" points=\"{}\"/>", classes, points);
}

std::string star(double x, double y) {
  std::string points;
  for (int i = 0; i < 10; ++i) {
    const double radius = i % 2 == 0 ? 8 : 3.4, angle = 3.14159265358979 * i / 5;
    points +=
        fmt::format("{:.1f},{:.1f} ", x + radius * std::sin(angle), y - radius * std::cos(angle));
  }
  points.pop_back();
  return fmt::format("<polygon class=\"best\" points=\"{}\"/>\n", points);
}

// The n-th of the lines that are not raw: colour and dashes by six, marks by the rest.
struct Style {
  std::size_t colour, shape;
  explicit Style(std::size_t n) : colour(n % colours), shape((n + n / colours) % shapes) {}
  std::string line(const std::string& points) const {
    return fmt::format("<polyline class=\"line s{}\" stroke-dasharray=\"{}\" points=\"{}\"/>\n",
                       colour, dashes[colour], points);
  }
  std::string mark_at(double x, double y) const {
    return mark(shape, x, y, fmt::format("mark s{}", colour));
  }
};

class Picture {
 public:
  explicit Picture(const Chart& chart)
      : chart_(chart), right_(chart.right_factor == 0 ? width - 12 : width - 52) {
    Range positive;
    for (const Curve& curve : chart.curves)
      for (const Point& p : curve.points) {
        x_.add(p.x);
        y_.add(p.y);
        if (p.y > 0) positive.add(p.y);
      }
    log_ = chart.logarithmic && y_.low >= 0 && positive.high / positive.low > 20;
    if (log_) y_ = positive;
  }

  std::string str() const {
    return fmt::format(
               "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{}-title "
               "{}-desc\">"
               "\n<title id=\"{}-title\">{}</title>\n<desc id=\"{}-desc\">{}</desc>\n",
               width, height, chart_.id, chart_.id, chart_.id, escaped(chart_.title), chart_.id,
               escaped(description())) +
           content() + "</svg>\n";
  }
  std::string content() const {
    const Axis x(x_.low, x_.high, left, right_, false), y(y_.low, y_.high, bottom, top, log_);
    std::string svg = axes(x, y);
    std::size_t styles = 0;
    for (const Curve& curve : chart_.curves) {
      svg += line(curve, Style(styles), x, y);
      if (!curve.raw) ++styles;
    }
    if (chart_.best && is_drawn(*chart_.best)) svg += star(x(chart_.best->x), y(chart_.best->y));
    return svg;
  }

 private:
  std::string description() const {
    std::string text = chart_.caption;
    for (const Curve& curve : chart_.curves)
      if (!curve.points.empty())
        text += fmt::format(" {}: from {} to {} in {} at the end.", curve.name,
                            short_number(curve.points.front().y),
                            short_number(curve.points.back().y), chart_.y);
    return text;
  }

  std::string axes(const Axis& x, const Axis& y) const {
    std::string svg;
    const auto text = [&](double at_x, double at_y, const char* anchor, const std::string& words) {
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", at_x,
                         at_y, anchor, escaped(words));
    };
    for (double tick : y.ticks()) {
      svg += fmt::format("<path class=\"grid\" d=\"M{} {:.1f}H{}\"/>\n", left, y(tick), right_);
      text(left - 5, y(tick) + 4, "end", short_number(tick));
    }
    for (double tick : x.ticks()) {
      svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {}v4\"/>\n", x(tick), bottom);
      text(x(tick), bottom + 17, "middle", short_number(tick));
    }
    if (chart_.right_factor != 0) {
      const double f = chart_.right_factor;
      const Axis other(y_.low * f, y_.high * f, bottom, top, log_);
      for (double tick : other.ticks()) {
        svg += fmt::format("<path class=\"axis\" d=\"M{} {:.1f}h4\"/>\n", right_, other(tick));
        text(right_ + 7, other(tick) + 4, "start", short_number(tick));
      }
      svg += fmt::format("<path class=\"axis\" d=\"M{} {}V{}\"/>\n", right_, top, bottom);
      text(width - 2, height - 6, "end", chart_.right + " (right)");
    }
    svg += fmt::format("<path class=\"axis\" d=\"M{} {}V{}H{}\"/>\n", left, top, bottom, right_);
    text(2, height - 6, "start", log_ ? chart_.y + ", logarithmic" : chart_.y);
    text((left + right_) / 2, height - 6, "middle", chart_.x);
    return svg;
  }

  // A logarithmic axis has no place for a zero: the line is interrupted there.
  bool is_drawn(const Point& p) const { return !log_ || p.y > 0; }

  std::string line(const Curve& curve, const Style& style, const Axis& x, const Axis& y) const {
    std::string svg, points;
    const auto finish = [&] {
      if (points.empty()) return;
      points.pop_back();
      svg += curve.raw ? fmt::format("<polyline class=\"raw s{}\" points=\"{}\"/>\n", style.colour,
                                     points)
                       : style.line(points);
      points.clear();
    };
    for (const Point& p : thinned(curve.points, most_points))
      if (is_drawn(p))
        points += fmt::format("{:.1f},{:.1f} ", x(p.x), y(p.y));
      else
        finish();
    finish();
    if (curve.raw) return svg;
    for (const Point& p : thinned(curve.points, 8))
      if (is_drawn(p)) svg += style.mark_at(x(p.x), y(p.y)) + '\n';
    return svg;
  }

  const Chart& chart_;
  double right_;
  Range x_, y_;
  bool log_ = false;
};

// A piece of the curve, 44 wide and 14 high.
std::string swatch(const Curve& curve, const Style& style) {
  return curve.raw ? fmt::format("<path class=\"raw s{}\" d=\"M2 7H42\"/>", style.colour)
                   : style.line("2,7 42,7") + style.mark_at(22, 7);
}

std::string legend(const Chart& chart) {
  std::string items;
  std::size_t styles = 0;
  for (const Curve& curve : chart.curves) {
    items += fmt::format("<li><svg viewBox=\"0 0 44 14\" aria-hidden=\"true\">{}</svg> {}</li>\n",
                         swatch(curve, Style(styles)), escaped(curve.name));
    if (!curve.raw) ++styles;
  }
  if (chart.best)
    items += fmt::format(
        "<li><svg viewBox=\"0 0 44 14\" aria-hidden=\"true\">{}</svg> best: {} {}</li>\n",
        star(22, 7), short_number(chart.best->y), escaped(chart.y));
  return "<ul class=\"legend\">\n" + items + "</ul>\n";
}

// A row for each x; curves that have many points show some of them.
std::string numbers(const Chart& chart) {
  std::vector<std::string> header{chart.x};
  std::map<double, std::vector<std::string>> rows;
  bool all = true;
  for (std::size_t i = 0; i < chart.curves.size(); ++i) {
    const auto& points = chart.curves[i].points;
    header.push_back(chart.curves[i].name);
    all = all && points.size() <= most_rows;
    for (const Point& p : thinned(points, most_rows)) {
      auto& cells = rows[p.x];
      cells.resize(chart.curves.size() + 1);
      cells[i + 1] = short_number(p.y);
    }
  }
  Table table(fmt::format("{}: {}{}", chart.title, chart.y, all ? "" : ", some of the points"),
              header);
  for (auto& [x, cells] : rows) {
    cells[0] = fmt::format("{}", x);
    table.add(std::move(cells));
  }
  return fmt::format("<details>\n<summary>{} as numbers</summary>\n{}</details>\n",
                     escaped(chart.title), table.str());
}

// The points that can be drawn, and the curves that have some.
Chart drawable(Chart chart) {
  constexpr double largest = 1e30;
  for (Curve& curve : chart.curves)
    std::erase_if(curve.points, [](const Point& p) {
      return !(std::abs(p.x) < largest && std::abs(p.y) < largest);
    });
  std::erase_if(chart.curves, [](const Curve& curve) { return curve.points.empty(); });
  return chart;
}

// A swatch and a name for each curve, one below the other, from `y` on.
std::string legend_in_picture(const Chart& chart, double y) {
  std::string items;
  std::size_t styles = 0;
  for (const Curve& curve : chart.curves) {
    items +=
        fmt::format("<g transform=\"translate({} {})\">{}<text x=\"50\" y=\"11\">{}</text></g>\n",
                    left, y, swatch(curve, Style(styles)), escaped(curve.name));
    if (!curve.raw) ++styles;
    y += 18;
  }
  return items;
}

}  // namespace

std::vector<Point> thinned(const std::vector<Point>& points, std::size_t most) {
  Spread<Point> some(most);
  for (const Point& p : points) some.add(p);
  return some.elements();
}

Curve curve(std::string name, std::span<const double> y, double x, bool raw) {
  Curve result{std::move(name), {}, raw};
  for (const double value : y) result.points.push_back({x++, value});
  return result;
}

std::string figure(const Chart& given) {
  const Chart chart = drawable(given);
  if (chart.curves.empty()) return "";
  return fmt::format("<figure>\n{}{}<figcaption><strong>{}</strong> {}</figcaption>\n{}</figure>\n",
                     Picture(chart).str(), legend(chart), escaped(chart.title),
                     escaped(chart.caption), numbers(chart));
}

std::string picture(const Chart& given) {
  const Chart chart = drawable(given);
  if (chart.curves.empty()) throw ValueError(chart.title + ": there is nothing to draw");
  constexpr double title = 34;
  const double whole = title + height + 18 * static_cast<double>(chart.curves.size()) + 10;
  return svg_file(width, whole,
                  fmt::format("<text class=\"title\" x=\"8\" y=\"22\">{}</text>\n"
                              "<g transform=\"translate(0 {})\">\n{}</g>\n{}",
                              escaped(chart.title), title, Picture(chart).content(),
                              legend_in_picture(chart, title + height + 4)));
}

}  // namespace reel::html
