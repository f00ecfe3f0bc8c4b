#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include <reel/autograd/check/evaluation.h>

namespace reel {
namespace {

using namespace detail;
using Verdict = GradientReport::Verdict;

double dot(const Numbers& a, const Numbers& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The norm of the elementwise product.
double product_norm(const Numbers& a, const Numbers& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * a[i] * b[i] * b[i];
  return std::sqrt(sum);
}

class Checker {
 public:
  Checker(const TensorFunction& f, const Params& params, const std::vector<NamedInput>& inputs,
          const GradcheckOptions& options)
      : options_(checked(options)),
        rng_(options.seed),
        f_(f, params, inputs, options_, rng_),
        variables_(f_.variables()) {}

  GradientReport run() {
    bool deterministic = true;
    for (int order = 1; order <= options_.order && deterministic; ++order)
      deterministic = check_order(order);
    for (const Row& row : report_.rows) report_.ok &= row.verdict == Verdict::ok;
    return std::move(report_);
  }

 private:
  using Row = GradientReport::Row;

  static const GradcheckOptions& checked(const GradcheckOptions& options) {
    if (options.order < 1 || !(options.step > 0) || options.directions < 1)
      throw ValueError("check_gradients: order, step and directions must be positive");
    return options;
  }

  // A directional derivative, analytic and numeric.
  struct Comparison {
    double analytic, numeric, error, tolerance;
    Verdict verdict;
  };

  // Returns whether all evaluations at one point agreed.
  bool check_order(int order) {
    f_.bend(order > 1);
    const auto below = order > 1 ? f_.gradients(order - 1) : std::vector<Numbers>{};
    analytic_ = f_.gradients(order);
    const auto again = f_.gradients(order);
    base_ = f_.outputs_at(order);
    c_ = f_.cotangents(order);
    bool same_results = same_bits(base_, f_.outputs_at(order)), same_gradients = true;
    const std::size_t first = report_.rows.size();
    std::size_t begin = 0;  // offset of a variable's gradient in base_, above the first order
    for (std::size_t i = 0; i < variables_.size(); ++i) {
      const Variable& v = variables_[i];
      Row& row = report_.rows.emplace_back(row_of(v, order));
      if (!same_results || !same_bits(analytic_[i], again[i])) {
        row.verdict = Verdict::not_deterministic;
        row.where = same_results ? "two gradients differ" : "two results differ";
        same_gradients = false;
      } else if (order == 1 || check_graph(v, below[i], std::span(base_).subspan(begin), row)) {
        check_variable(v, analytic_[i], row);
      }
      begin += analytic_[i].size();
    }
    return same_results && same_gradients && !equal_by_chance(order, first);
  }

  // Discrete random draws may agree twice by chance, and then look like a wrong gradient.
  bool equal_by_chance(int order, std::size_t first_row) {
    const auto rows = std::span(report_.rows).subspan(first_row);
    const auto failed = [](const Row& row) { return row.verdict != Verdict::ok; };
    if (std::ranges::none_of(rows, failed)) return false;
    constexpr int attempts = 20;
    for (int i = 0; i < attempts; ++i) {
      if (same_bits(base_, f_.outputs_at(order))) continue;
      for (Row& row : rows)
        if (failed(row)) {
          row.verdict = Verdict::not_deterministic;
          row.where = "two results differ";
        }
      return true;
    }
    return false;
  }

  // Whether the gradient recorded for differentiation equals the one that was not recorded.
  bool check_graph(const Variable& v, const Numbers& gradient, std::span<const double> recorded,
                   Row& row) {
    for (std::size_t j = 0; j < gradient.size(); ++j) {
      Comparison c{recorded[j], gradient[j], std::abs(recorded[j] - gradient[j]),
                   tolerance_of(gradient[j]), Verdict::wrong};
      if (c.error <= c.tolerance || same_bits({recorded[j]}, {gradient[j]}))
        c.verdict = Verdict::ok;
      if (note(c, row)) name(v, j, row);
    }
    if (row.verdict == Verdict::ok) {
      row = row_of(v, row.order);
      return true;
    }
    row.where += ", as recorded by create_graph";
    return false;
  }

  void check_variable(const Variable& v, const Numbers& gradient, Row& row) {
    if (options_.mode == GradcheckOptions::Mode::slow) {
      for (std::size_t j = 0; j < gradient.size(); ++j)
        if (note(compare(v, gradient, single(gradient.size(), j), row.order), row)) name(v, j, row);
    } else if (!gradient.empty()) {
      check_directions(v, gradient, row);
    }
  }

  void check_directions(const Variable& v, const Numbers& gradient, Row& row) {
    Numbers worst;
    for (int d = 0; d < options_.directions; ++d) {
      Numbers direction = random_numbers(rng_, v.start.size());
      const double norm = std::sqrt(dot(direction, direction));
      for (double& u : direction) u /= norm;
      if (!note(compare(v, gradient, direction, row.order), row)) continue;
      row.where = fmt::format("{}, direction {}", v.name, d);
      worst = std::move(direction);
    }
    if (row.verdict != Verdict::ok) bisect(v, gradient, worst, row);
  }

  // Bisects a direction that failed until one coordinate is left, and reports it if it fails too.
  void bisect(const Variable& v, const Numbers& gradient, const Numbers& direction, Row& row) {
    const auto error = [&](std::size_t begin, std::size_t end) {
      Numbers part(direction.size());
      std::copy_n(direction.begin() + static_cast<Index>(begin), end - begin,
                  part.begin() + static_cast<Index>(begin));
      return at_step(v, gradient, part, row.order, options_.step).error;
    };
    std::size_t begin = 0, end = direction.size();
    while (end - begin > 1) {
      const std::size_t middle = (begin + end) / 2;
      // A NaN error is worse than any other.
      if (error(begin, middle) <= error(middle, end))
        begin = middle;
      else
        end = middle;
    }
    Row found = row_of(v, row.order);
    note(compare(v, gradient, single(direction.size(), begin), row.order), found);
    if (found.verdict == Verdict::ok) return;
    name(v, begin, found);
    found.failures = row.failures;
    found.checked = row.checked;
    row = found;
  }

  static Row row_of(const Variable& v, int order) {
    Row row;
    row.name = v.name;
    row.shape = v.start.shape();
    row.order = order;
    return row;
  }

  static Numbers single(std::size_t size, std::size_t j) {
    Numbers direction(size);
    direction[j] = 1;
    return direction;
  }

  void name(const Variable& v, std::size_t j, Row& row) const {
    row.coordinate = static_cast<Index>(j);
    row.where = coordinate_name(v.entry ? *v.entry : ParamEntry{.name = v.name, .value = v.start},
                                row.coordinate);
  }

  double tolerance_of(double gradient) const {
    return options_.atol + options_.rtol * std::abs(gradient);
  }

  // Compares a directional derivative with finite differences; if they disagree at the given step,
  // other steps are tried, the smallest one last.
  Comparison compare(const Variable& v, const Numbers& gradient, const Numbers& direction,
                     int order) {
    Comparison best = at_step(v, gradient, direction, order, options_.step);
    if (best.verdict == Verdict::ok || !std::isfinite(best.analytic)) return best;
    std::map<double, double> numeric{{1.0, best.numeric}};  // by step
    for (const double factor : {4.0, 16.0, 0.25, 0x1p-4, 0x1p-6, 0x1p-8}) {
      const Comparison c = at_step(v, gradient, direction, order, factor * options_.step);
      const Verdict verdict = c.verdict;
      numeric[factor] = c.numeric;
      if (c.error < best.error || std::isnan(best.error)) best = c;
      if (verdict == Verdict::ok) return c;
      best.verdict = verdict;
    }
    if (best.verdict == Verdict::wrong && agrees_within_spread(best.analytic, numeric))
      best.verdict = Verdict::ok;
    return best;
  }

  // For steep functions no step is accurate enough for the tolerance. The two neighbouring steps
  // that differ least give the attainable accuracy; an error below that, and within the tolerance
  // of the whole derivative, cannot be detected by finite differences.
  bool agrees_within_spread(double analytic, const std::map<double, double>& numeric) const {
    double spread = INFINITY, error = INFINITY;
    for (auto small = numeric.begin(), large = std::next(small); large != numeric.end();
         ++small, ++large)
      if (const double gap = std::abs(small->second - large->second); gap < spread) {
        spread = gap;
        error = std::abs(small->second - analytic);
      }
    return error <= 4 * spread && error <= tolerance_of(analytic);
  }

  Comparison at_step(const Variable& v, const Numbers& gradient, const Numbers& direction,
                     int order, double h) {
    const Numbers after = f_.outputs_at(order, v, direction, h),
                  far_after = f_.outputs_at(order, v, direction, 2 * h),
                  before = f_.outputs_at(order, v, direction, -h),
                  far_before = f_.outputs_at(order, v, direction, -2 * h);
    double central = 0, left = 0, right = 0;
    // Subtract first: elements that did not change then contribute an exact zero.
    for (std::size_t i = 0; i < c_.size(); ++i) {
      central += c_[i] * (8 * (after[i] - before[i]) - (far_after[i] - far_before[i])) / (12 * h);
      right += c_[i] * (4 * (after[i] - base_[i]) - (far_after[i] - base_[i])) / (2 * h);
      left += c_[i] * (4 * (base_[i] - before[i]) - (base_[i] - far_before[i])) / (2 * h);
    }
    double analytic = 0, strictest = INFINITY, moved_norm = 0;
    for (std::size_t j = 0; j < direction.size(); ++j) {
      if (direction[j] == 0) continue;
      analytic += gradient[j] * direction[j];
      strictest = std::min(strictest, std::abs(direction[j]) * tolerance_of(gradient[j]));
      moved_norm = std::hypot(moved_norm, gradient[j] * v.start_numbers[j]);
    }
    // Rounding of the outputs, and of the steps in x.
    const double rounding =
        32 * v.epsilon() * (product_norm(c_, base_) + moved_norm) / options_.step;
    const double tolerance = strictest + rounding;
    return {analytic, central, std::abs(analytic - central), tolerance,
            verdict(analytic, central, tolerance, std::minmax(left, right))};
  }

  static Verdict verdict(double analytic, double central, double tolerance,
                         const std::pair<double, double>& slopes) {
    if (!std::isfinite(analytic) || !std::isfinite(central)) return Verdict::not_finite;
    if (std::abs(analytic - central) <= tolerance) return Verdict::ok;
    const auto [low, high] = slopes;
    const double gap = high - low, margin = gap / 20;
    const bool differ = gap > 1e-4 * std::max(std::abs(low), std::abs(high));
    const bool between = analytic >= low - margin && analytic <= high + margin;
    return differ && between ? Verdict::kink : Verdict::wrong;
  }

  // Adds a comparison to the row, and returns whether it is the worst so far.
  static bool note(const Comparison& c, Row& row) {
    const bool first = row.checked++ == 0;
    if (c.verdict != Verdict::ok) ++row.failures;
    const bool worse = c.error * row.tolerance > row.error * c.tolerance;
    if (!first && (c.verdict < row.verdict || (c.verdict == row.verdict && !worse))) return false;
    row.analytic = c.analytic;
    row.numeric = c.numeric;
    row.error = c.error;
    row.tolerance = c.tolerance;
    row.verdict = c.verdict;
    return true;
  }

  const GradcheckOptions& options_;
  Rng rng_;
  Evaluation f_;
  const std::vector<Variable>& variables_;
  // For the order being checked:
  std::vector<Numbers> analytic_;  // the gradients of the projection, by variable
  Numbers base_, c_;               // the outputs at the original point, and their cotangents
  GradientReport report_;
};

}  // namespace

GradientReport check_gradients(const TensorFunction& loss, const Params& params,
                               const std::vector<NamedInput>& inputs,
                               const GradcheckOptions& options) {
  return Checker(loss, params, inputs, options).run();
}

GradientReport check_gradients(const TensorFunction& f, const std::vector<NamedInput>& inputs,
                               const GradcheckOptions& options) {
  return check_gradients(f, Params(), inputs, options);
}

GradientReport check_gradients(const TensorFunction& f, const std::vector<Tensor>& inputs,
                               const GradcheckOptions& options) {
  std::vector<NamedInput> named;
  for (const Tensor& x : inputs) named.push_back({fmt::format("x{}", named.size()), x});
  return check_gradients(f, named, options);
}

GradientReport check_gradients(const std::function<Tensor()>& loss, const Params& params,
                               const GradcheckOptions& options) {
  return check_gradients([&](std::span<const Tensor>) { return loss(); }, params, {}, options);
}

}  // namespace reel
