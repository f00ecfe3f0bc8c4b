#include <reel/autograd/check/gradcheck.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace reel {
namespace {

using Numbers = std::vector<double>;
using Verdict = GradientReport::Verdict;

// What the function is differentiated by: a parameter, or one of the arguments.
struct Variable {
  std::string name;
  Tensor start;
  std::shared_ptr<ParamEntry> entry;  // of a parameter
  std::size_t argument = 0;           // otherwise
  Numbers start_numbers = start.to_vector();

  double epsilon() const {
    return start.dtype() == f32 ? std::numeric_limits<float>::epsilon()
                                : std::numeric_limits<double>::epsilon();
  }
};

// Gives sources of random numbers their positions back.
class RestoredRngs {
 public:
  explicit RestoredRngs(const std::vector<Rng*>& rngs) {
    for (Rng* rng : rngs) saved_.emplace_back(rng, rng->state());
  }
  ~RestoredRngs() { restore(); }
  RestoredRngs(const RestoredRngs&) = delete;
  RestoredRngs& operator=(const RestoredRngs&) = delete;

  void restore() const {
    for (const auto& [rng, state] : saved_) *rng = Rng(state);
  }

 private:
  std::vector<std::pair<Rng*, Rng::State>> saved_;
};

bool same_bits(const Numbers& a, const Numbers& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

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

Numbers flat(const std::vector<Tensor>& tensors) {
  Numbers all;
  for (const Tensor& x : tensors) {
    const Numbers numbers = x.to_vector();
    all.insert(all.end(), numbers.begin(), numbers.end());
  }
  return all;
}

// x + distance * direction
Tensor moved(const Tensor& x, const Numbers& direction, double distance) {
  Tensor result = x;
  dispatch_real(x.dtype(), [&]<class T>() {
    const std::span<T> numbers = result.edit<T>();
    for (std::size_t i = 0; i < numbers.size(); ++i)
      if (direction[i] != 0) numbers[i] += static_cast<T>(distance * direction[i]);
  });
  return result;
}

// Of either sign and nowhere near zero, so that nothing escapes a projection on them.
Numbers random_numbers(Rng& rng, Index count) {
  Numbers numbers(static_cast<std::size_t>(count));
  for (double& x : numbers) x = (rng.uniform() < 0.5 ? -1 : 1) * (0.5 + rng.uniform());
  return numbers;
}

class Checker {
 public:
  Checker(const TensorFunction& f, const Params& params, const std::vector<NamedInput>& inputs,
          const GradcheckOptions& options)
      : f_(f), options_(options), restored_rngs_(options.replay), rng_(options.seed) {
    if (options.order < 1 || !(options.step > 0) || options.directions < 1)
      throw ValueError("check_gradients: order, step and directions must be positive");
    params.each([&](const auto& entry) { add({entry->name, entry->value, entry, 0}); });
    for (const NamedInput& input : inputs) {
      if (!input.value.defined())
        throw ValueError(fmt::format("check_gradients: {} is undefined", input.name));
      if (is_real(input.value.dtype())) add({input.name, input.value, nullptr, arguments_.size()});
      arguments_.push_back(input.value);
    }
  }

  GradientReport run() {
    bool deterministic = true;
    for (int order = 1; order <= options_.order && deterministic; ++order)
      deterministic = check_order(order);
    for (const Row& row : report_.rows) report_.ok &= row.verdict == Verdict::ok;
    return std::move(report_);
  }

 private:
  using Row = GradientReport::Row;

  // A derivative along a direction, beside that of differences.
  struct Comparison {
    double analytic, numeric, error, tolerance;
    Verdict verdict;
  };

  void add(const Variable& variable) {
    if (variable.start.dtype() == f32 && !options_.allow_f32)
      throw DTypeError(fmt::format(
          "check_gradients: {} is f32, too coarse for differences; {}, or set allow_f32 with a "
          "larger step and tolerances",
          variable.name,
          variable.entry ? "construct the model once more on params.to(f64) and check that one"
                         : "convert it with to(f64)"));
    variables_.push_back(variable);
  }

  // The variables as leaves of the current tape; f's arguments come from them.
  std::vector<Tensor> leaves(std::vector<Tensor>& arguments) const {
    std::vector<Tensor> result;
    for (const Variable& v : variables_) {
      result.push_back(v.entry ? Tape::current()->leaf(v.entry)
                               : Tape::current()->watch(arguments[v.argument]));
      if (!v.entry) arguments[v.argument] = result.back();
    }
    return result;
  }

  // What is checked at an order: the function, or the gradients of the order below.
  std::vector<Tensor> outputs(int order, std::span<const Tensor> arguments,
                              std::span<const Tensor> leaves) {
    if (order > 1) return gradients(order - 1, outputs(order - 1, arguments, leaves), leaves, true);
    restored_rngs_.restore();
    const Tensor y = f_(arguments);
    if (!y.defined() || !is_real(y.dtype()))
      throw DTypeError("check_gradients: the result of the function must be f32 or f64");
    for (const Variable& v : variables_)
      if (v.start.dtype() != y.dtype())
        throw DTypeError(fmt::format(
            "check_gradients: the result of the function is {}, but {} is {}, so it does not "
            "depend on it; the function has to use what is checked",
            name_of(y.dtype()), v.name, name_of(v.start.dtype())));
    return {curved_ ? y + 0.5 * tanh(y) : y};
  }

  // The gradients of the outputs' projection on this order's cotangents.
  std::vector<Tensor> gradients(int order, const std::vector<Tensor>& outputs,
                                std::span<const Tensor> leaves, bool create_graph) {
    Tensor projection = scalar(0, outputs.empty() ? f64 : outputs[0].dtype());
    for (std::size_t i = 0; i < outputs.size(); ++i)
      projection = projection + sum(outputs[i] * cotangent(order, i, outputs[i]));
    if (projection.trace().generation != 0)
      return Tape::current()->gradient(projection, leaves, {.create_graph = create_graph});
    std::vector<Tensor> constant;
    for (const Tensor& leaf : leaves) constant.push_back(zeros(leaf.shape(), leaf.dtype()));
    return constant;
  }

  const Tensor& cotangent(int order, std::size_t output, const Tensor& like) {
    cotangents_.resize(std::max(cotangents_.size(), static_cast<std::size_t>(order)));
    auto& of_order = cotangents_[static_cast<std::size_t>(order) - 1];
    if (output == of_order.size()) {
      const bool one_number = order == 1 && like.size() == 1;  // whose gradient has a meaning
      of_order.push_back(
          one_number ? ones(like.shape(), like.dtype())
                     : tensor(like.shape(), random_numbers(rng_, like.size()), like.dtype()));
    }
    if (of_order[output].shape() != like.shape())
      throw ShapeError("check_gradients: the shape of the result differs from call to call");
    return of_order[output];
  }

  Numbers outputs_at(int order, std::vector<Tensor> arguments) {
    Tape tape;
    const std::vector<Tensor> x = leaves(arguments);
    return flat(outputs(order, arguments, x));
  }

  // The outputs with one variable moved.
  Numbers outputs_at(int order, const Variable& v, const Numbers& direction, double distance) {
    const Tensor value = moved(v.start, direction, distance);
    std::vector<Tensor> arguments = arguments_;
    if (!v.entry) {
      arguments[v.argument] = value;
      return outputs_at(order, std::move(arguments));
    }
    LentParam lent{Param(v.entry)};
    lent.lend(value);
    return outputs_at(order, std::move(arguments));
  }

  std::vector<Numbers> analytic_gradients(int order) {
    Tape tape;
    std::vector<Tensor> arguments = arguments_;
    const std::vector<Tensor> x = leaves(arguments);
    std::vector<Numbers> result;
    for (const Tensor& g : gradients(order, outputs(order, arguments, x), x, false))
      result.push_back(g.to_vector());
    return result;
  }

  // Returns whether all evaluations at one point agreed.
  bool check_order(int order) {
    curved_ = order > 1;
    const auto below = order > 1 ? analytic_gradients(order - 1) : std::vector<Numbers>{};
    analytic_ = analytic_gradients(order);
    const auto again = analytic_gradients(order);
    base_ = outputs_at(order, arguments_);
    c_ = flat(cotangents_[static_cast<std::size_t>(order) - 1]);
    bool same_results = same_bits(base_, outputs_at(order, arguments_)), same_gradients = true;
    const std::size_t first = report_.rows.size();
    std::size_t begin = 0;  // of a variable's gradient in base_, above the first order
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
    return same_results && same_gradients && !luckily_equal(order, first);
  }

  // Random numbers of few values may agree twice by luck, and then look like an error.
  bool luckily_equal(int order, std::size_t first_row) {
    const auto rows = std::span(report_.rows).subspan(first_row);
    const auto failed = [](const Row& row) { return row.verdict != Verdict::ok; };
    if (std::ranges::none_of(rows, failed)) return false;
    constexpr int attempts = 20;
    for (int i = 0; i < attempts; ++i) {
      if (same_bits(base_, outputs_at(order, arguments_))) continue;
      for (Row& row : rows)
        if (failed(row)) {
          row.verdict = Verdict::not_deterministic;
          row.where = "two results differ";
        }
      return true;
    }
    return false;
  }

  // Whether the gradient that was recorded, to be differentiated, is the one that was not.
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
    if (row.verdict != Verdict::ok) blame(v, gradient, worst, row);
  }

  // Halves a direction that failed until one coordinate is left, and names it if it fails too.
  void blame(const Variable& v, const Numbers& gradient, const Numbers& direction, Row& row) {
    const auto error = [&](std::size_t begin, std::size_t end) {
      Numbers part(direction.size());
      std::copy_n(direction.begin() + static_cast<Index>(begin), end - begin,
                  part.begin() + static_cast<Index>(begin));
      return at_step(v, gradient, part, row.order, options_.step).error;
    };
    std::size_t begin = 0, end = direction.size();
    while (end - begin > 1) {
      const std::size_t middle = (begin + end) / 2;
      // An error that is NaN is worse than any other.
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

  // The derivative along a direction against differences; where they disagree at the given step,
  // others have a say, and the smallest has the last one.
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

  // Steep functions have no step at which differences are as sharp as the tolerance asks. The two
  // neighbouring steps that differ least say how sharp they get; what is nearer than that, and
  // within the tolerance of the whole derivative, is no error that differences can see.
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
    const Numbers after = outputs_at(order, v, direction, h),
                  far_after = outputs_at(order, v, direction, 2 * h),
                  before = outputs_at(order, v, direction, -h),
                  far_before = outputs_at(order, v, direction, -2 * h);
    double central = 0, left = 0, right = 0;
    // Differences first: elements that did not change contribute an exact zero.
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
    // Of the outputs, and of the steps that are taken in x.
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

  // Enters one comparison in the row, and returns whether it is the worst so far.
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

  const TensorFunction& f_;
  const GradcheckOptions& options_;
  RestoredRngs restored_rngs_;
  Rng rng_;
  std::vector<Variable> variables_;
  std::vector<Tensor> arguments_;
  std::vector<std::vector<Tensor>> cotangents_;  // by order, then by output
  // Of the order that is being checked:
  bool curved_ = false;            // whether the function's result is bent
  std::vector<Numbers> analytic_;  // the gradients of the projection, by variable
  Numbers base_, c_;               // the outputs where nothing is moved, and their cotangents
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
