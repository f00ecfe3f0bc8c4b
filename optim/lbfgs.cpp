#include <reel/optim/lbfgs.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include <reel/autograd/kernels/broadcast.h>

namespace reel::optim {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  return kernels::sum_of<double>(static_cast<Index>(a.size()), [&](Index i) {
    return a[static_cast<std::size_t>(i)] * b[static_cast<std::size_t>(i)];
  });
}

double largest(const Vector& x) {
  double most = 0;
  for (double number : x)
    if (!(std::abs(number) <= most)) most = std::abs(number);  // NaN is the largest, and stays so
  return most;
}

double sum_of_magnitudes(const Vector& x) {
  return kernels::sum_of<double>(static_cast<Index>(x.size()),
                                 [&](Index i) { return std::abs(x[static_cast<std::size_t>(i)]); });
}

// x + factor y.
Vector sum_of(Vector x, double factor, const Vector& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += factor * y[i];
  return x;
}

Vector scaled(double factor, Vector x) {
  for (double& number : x) number *= factor;
  return x;
}

// The minimum, within bounds, of the cubic through two points with these values and slopes; the
// middle if it has none (Nocedal and Wright, equation 3.59).
template <class Point>
double cubic_minimum(const Point& a, const Point& b, double low, double high) {
  const auto& [left, right] = a.t <= b.t ? std::tie(a, b) : std::tie(b, a);
  const double d1 = left.slope + right.slope - 3 * (left.loss - right.loss) / (left.t - right.t);
  const double square = d1 * d1 - left.slope * right.slope;
  if (!(square >= 0)) return (low + high) / 2;
  const double d2 = std::sqrt(square);
  const double t = right.t - (right.t - left.t) *
                                 ((right.slope + d2 - d1) / (right.slope - left.slope + 2 * d2));
  return std::min(std::max(t, low), high);
}

}  // namespace

struct Lbfgs::Point {
  double t, loss, slope;
  Vector gradient;
};

// Looks along a line for a point that satisfies the strong Wolfe conditions: first for an interval
// that has one, then within it.
class Lbfgs::Search {
 public:
  Search(const Point& start, double direction_size, double least_change,
         std::function<Point(double)> evaluate, int evaluations)
      : start_(start),
        size_(direction_size),
        least_change_(least_change),
        evaluate_(std::move(evaluate)),
        left_(evaluations) {}

  Point from(double t) {
    bracket(t);
    while (!found_ && left_ > 0 && std::abs(high_->t - low_->t) * size_ >= least_change_) narrow();
    return std::move(*low_);
  }

 private:
  Point next(double t) {
    --left_;
    return evaluate_(t);
  }
  bool is_too_high(const Point& p) const {
    return !(p.loss <= start_.loss + 1e-4 * p.t * start_.slope);
  }
  bool is_flat(const Point& p) const { return std::abs(p.slope) <= -0.9 * start_.slope; }

  void set(Point a, Point b) {
    const bool in_order = !(b.loss < a.loss);  // also where b's is NaN
    low_ = in_order ? a : b;
    high_ = in_order ? std::move(b) : std::move(a);
  }

  void bracket(double t) {
    Point before = start_;
    Point now = evaluate_(t);
    // The first evaluation is not counted, as PyTorch does not.
    for (int tried = 0; left_ > 0; ++tried) {
      if (is_too_high(now) || (tried > 1 && now.loss >= before.loss))
        return set(std::move(before), std::move(now));
      if (is_flat(now)) {
        found_ = true;
        low_ = std::move(now);
        return;
      }
      if (now.slope >= 0) return set(std::move(before), std::move(now));
      const double further =
          cubic_minimum(before, now, now.t + 0.01 * (now.t - before.t), 10 * now.t);
      before = std::move(now);
      now = next(further);
    }
    set(start_, std::move(now));
  }

  // Tries the minimum of a cubic, but not too near to an end twice.
  void narrow() {
    const double left = std::min(low_->t, high_->t), right = std::max(low_->t, high_->t);
    double t = cubic_minimum(*low_, *high_, left, right);
    const double margin = 0.1 * (right - left);
    const bool is_near_end = std::min(right - t, t - left) < margin;
    if (is_near_end && (was_near_end_ || t >= right || t <= left)) {
      t = std::abs(t - right) < std::abs(t - left) ? right - margin : left + margin;
      was_near_end_ = false;
    } else {
      was_near_end_ = is_near_end;
    }
    Point now = next(t);
    if (is_too_high(now) || now.loss >= low_->loss) {
      high_ = std::move(now);
      if (high_->loss < low_->loss) std::swap(low_, high_);
      return;
    }
    if (is_flat(now))
      found_ = true;
    else if (now.slope * (high_->t - low_->t) >= 0)
      high_ = std::move(low_);
    low_ = std::move(now);
  }

  const Point& start_;
  double size_, least_change_;
  std::function<Point(double)> evaluate_;
  int left_;
  bool found_ = false, was_near_end_ = false;
  std::optional<Point> low_, high_;  // the ends of the interval, by their losses
};

Lbfgs::Lbfgs(const nn::ModuleParams& params, const LbfgsOptions& options)
    : options_(options), params_(params.list()) {
  const auto require = [](bool ok, const char* name, auto value, const char* range) {
    if (!ok)
      throw ValueError(fmt::format("lbfgs: {} is {}, but has to be {}", name, value, range),
                       SiteScope::current());
  };
  const auto is_finite = [](double x) { return x >= 0 && std::isfinite(x); };
  require(is_finite(options.learning_rate) && options.learning_rate > 0, "learning_rate",
          options.learning_rate, "a finite number > 0");
  require(options.iterations > 0, "iterations", options.iterations, "1 or more");
  require(options.evaluations > 1, "evaluations", options.evaluations, "2 or more");
  require(options.history > 0, "history", options.history, "1 or more");
  require(is_finite(options.least_gradient), "least_gradient", options.least_gradient,
          "a finite number >= 0");
  require(is_finite(options.least_change), "least_change", options.least_change,
          "a finite number >= 0");
  if (params_.empty())
    throw ValueError(
        "lbfgs: there are no parameters to train; construct the model before the "
        "optimizer: " +
            params.what_there_is(),
        SiteScope::current());
  for (const Param& param : params_) size_ += static_cast<std::size_t>(param.shape().size());
}

double Lbfgs::step(const Evaluate& evaluate, Site site) {
  const SiteScope scope(site);
  step_.resize(size_);
  Point now = at(evaluate, values(), {}, 0);
  const double loss = now.loss;
  require_finite(now, site);
  int evaluated = 1;
  for (int i = 0; i < options_.iterations && evaluated < options_.evaluations; ++i) {
    if (largest(now.gradient) <= options_.least_gradient) break;
    if (iterations_ > 0) remember(now.gradient);
    const Vector d = direction(now.gradient);
    const Vector origin = values();
    const double rate = options_.learning_rate;
    const double t =
        iterations_ > 0 ? rate : rate * std::min(1.0, 1 / sum_of_magnitudes(now.gradient));
    ++iterations_;
    gradient_ = now.gradient;
    step_.assign(size_, 0);  // until there is one
    now.t = 0;
    now.slope = dot(now.gradient, d);
    if (now.slope > -options_.least_change) break;
    if (!options_.line_search && i + 1 == options_.iterations) {
      assign(origin, d, t);
      step_ = scaled(t, d);
      break;
    }
    const auto point_at = [&](double x) { return at(evaluate, origin, d, x); };
    const Index before = evaluations_;
    Point found = options_.line_search ? Search(now, largest(d), options_.least_change, point_at,
                                                options_.evaluations - evaluated)
                                             .from(t)
                                       : point_at(t);
    evaluated += static_cast<int>(evaluations_ - before);
    assign(origin, d, found.t);
    step_ = scaled(found.t, d);
    if (!options_.line_search) require_finite(found, site);
    const double change = std::abs(found.loss - now.loss);
    now = std::move(found);
    if (largest(step_) <= options_.least_change || change < options_.least_change) break;
  }
  return loss;
}

void Lbfgs::require_finite(const Point& point, Site site) const {
  if (std::isfinite(point.loss) && std::isfinite(largest(point.gradient))) return;
  throw ValueError(fmt::format("lbfgs: the loss is {} and the largest gradient {}; both have to "
                               "be finite{}",
                               point.loss, largest(point.gradient),
                               options_.line_search ? "" : ": choose a smaller learning rate"),
                   site);
}

// ---- The parameters as one vector.

Lbfgs::Point Lbfgs::at(const Evaluate& evaluate, const Vector& origin, const Vector& direction,
                       double t) {
  if (!direction.empty()) assign(origin, direction, t);
  const auto [loss, gradients] = evaluate();
  ++evaluations_;
  Point point{t, loss, 0, flat(gradients)};
  if (!direction.empty()) point.slope = dot(point.gradient, direction);
  return point;
}

// origin + t direction.
void Lbfgs::assign(const Vector& origin, const Vector& direction, double t) {
  const Vector values = sum_of(origin, t, direction);
  auto next = values.begin();
  for (Param& param : params_) {
    const auto end = next + param.shape().size();
    param.set(tensor(param.shape(), std::span<const double>(next, end), param.dtype()));
    next = end;
  }
}

Vector Lbfgs::values() const {
  Vector all;
  all.reserve(size_);
  for (const Param& param : params_) {
    const std::vector<double> numbers = param.value().to_vector();
    all.insert(all.end(), numbers.begin(), numbers.end());
  }
  return all;
}

Vector Lbfgs::flat(const Gradients& gradients) const {
  Vector all;
  all.reserve(size_);
  if (!gradients.params().contains(*params_.front().entry()))
    throw ValueError(
        "lbfgs: these gradients are of another store or part; take them with respect "
        "to the parameters that the optimizer was given",
        SiteScope::current());
  for (const Param& param : params_) {
    const Tensor* gradient = gradients.find(param);
    const std::vector<double> numbers =
        gradient ? gradient->to_vector()
                 : std::vector<double>(static_cast<std::size_t>(param.shape().size()));
    all.insert(all.end(), numbers.begin(), numbers.end());
  }
  return all;
}

// ---- The estimate of the inverse Hessian.

void Lbfgs::remember(const Vector& gradient) {
  const Vector y = sum_of(gradient, -1, gradient_);
  const double curvature = dot(y, step_);
  if (!(curvature > 1e-10)) return;
  while (std::ssize(pairs_) >= options_.history) pairs_.pop_front();
  scale_ = curvature / dot(y, y);
  pairs_.emplace_back(step_, y);
}

Vector Lbfgs::direction(const Vector& gradient) const {
  Vector d = scaled(-1, gradient);
  std::vector<double> factors(pairs_.size());
  for (std::size_t i = pairs_.size(); i-- > 0;) {
    const auto& [s, y] = pairs_[i];
    factors[i] = dot(s, d) / dot(y, s);
    d = sum_of(std::move(d), -factors[i], y);
  }
  d = scaled(scale_, std::move(d));
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    const auto& [s, y] = pairs_[i];
    const double factor = factors[i] - dot(y, d) / dot(y, s);
    d = sum_of(std::move(d), factor, s);
  }
  return d;
}

// ---- Its state.

nn::NamedTensors Lbfgs::state() const {
  nn::NamedTensors state;
  const auto vector = [](const Vector& x) {
    return tensor({static_cast<Index>(x.size())}, std::span<const double>(x), f64);
  };
  state.tensors["lbfgs.iterations"] = scalar(static_cast<double>(iterations_), f64);
  state.tensors["lbfgs.evaluations"] = scalar(static_cast<double>(evaluations_), f64);
  state.tensors["lbfgs.scale"] = scalar(scale_, f64);
  state.tensors["lbfgs.pairs"] = scalar(static_cast<double>(pairs_.size()), f64);
  state.tensors["lbfgs.step"] = vector(step_);
  state.tensors["lbfgs.gradient"] = vector(gradient_);
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    state.tensors[fmt::format("lbfgs.s.{}", i)] = vector(pairs_[i].first);
    state.tensors[fmt::format("lbfgs.y.{}", i)] = vector(pairs_[i].second);
  }
  return state;
}

void Lbfgs::restore(const nn::NamedTensors& state, Site site) {
  const Index iterations = nn::count_in(state, "lbfgs.iterations", site);
  const auto vector = [&](const std::string& name) {
    const Tensor& value = state[{name, site}];
    const bool is_empty = value.size() == 0 && iterations == 0;
    if (value.dtype() != f64 || (!is_empty && value.size() != static_cast<Index>(size_)))
      throw ValueError(fmt::format("lbfgs: entry {} of the state is {} {}, but has to be f64 [{}]; "
                                   "is it of another model?",
                                   name, name_of(value.dtype()), value.shape().str(), size_),
                       site);
    std::vector<double> numbers = value.to_vector();
    if (!std::isfinite(largest(numbers)))
      throw ValueError(
          fmt::format("lbfgs: entry {} of the state holds a number that is not finite", name),
          site);
    return numbers;
  };
  Lbfgs restored = *this;
  restored.iterations_ = iterations;
  restored.evaluations_ = nn::count_in(state, "lbfgs.evaluations", site);
  restored.scale_ = nn::number_in(state, "lbfgs.scale", 0, 1e300, site);
  restored.step_ = vector("lbfgs.step");
  restored.gradient_ = vector("lbfgs.gradient");
  restored.pairs_.clear();
  for (Index i = 0, count = nn::count_in(state, "lbfgs.pairs", site); i < count; ++i)
    restored.pairs_.emplace_back(vector(fmt::format("lbfgs.s.{}", i)),
                                 vector(fmt::format("lbfgs.y.{}", i)));
  *this = std::move(restored);
}

}  // namespace reel::optim
