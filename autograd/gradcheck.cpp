#include <reel/autograd/gradcheck.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

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
};

// Gives parameters their old values and versions back, so that nobody sees that they were moved.
class RestoredParams {
 public:
  explicit RestoredParams(const Params& params) {
    params.each([&](const auto& entry) {
      saved_.push_back({entry, entry->value, entry->version});
    });
  }
  ~RestoredParams() {
    for (const Saved& s : saved_) {
      s.entry->value = s.value;
      s.entry->version = s.version;
    }
  }
  RestoredParams(const RestoredParams&) = delete;
  RestoredParams& operator=(const RestoredParams&) = delete;

 private:
  struct Saved {
    std::shared_ptr<ParamEntry> entry;
    Tensor value;
    std::uint64_t version;
  };
  std::vector<Saved> saved_;
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

std::string default_name(const std::string& name, const Shape& shape, Index flat) {
  if (shape.rank() == 0) return name;
  std::vector<Index> indices;
  for (int axis = 0; axis < shape.rank(); ++axis)
    indices.push_back(flat / shape.stride(axis) % shape[axis]);
  return fmt::format("{}[{}]", name, fmt::join(indices, ", "));
}

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok:
      return "ok";
    case Verdict::kink:
      return "kink";
    case Verdict::wrong:
      return "WRONG";
    case Verdict::not_finite:
      return "not finite";
    case Verdict::not_deterministic:
      return "not deterministic";
  }
  return "";
}

class Checker {
 public:
  Checker(const TensorFunction& f, const Params& params, const std::vector<NamedTensor>& inputs,
          const GradcheckOptions& options)
      : f_(f), options_(options), restored_(params), rng_(options.seed) {
    if (options.order < 1 || !(options.step > 0) || options.directions < 1)
      throw ValueError("check_gradients: order, step and directions must be positive");
    params.each([&](const auto& entry) { add({entry->name, entry->value, entry, 0}); });
    for (const NamedTensor& input : inputs) {
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
    for (const auto& row : report_.rows) report_.ok &= row.verdict == Verdict::ok;
    return std::move(report_);
  }

 private:
  struct Slopes {
    double central, left, right;
  };

  void add(const Variable& variable) {
    if (variable.start.dtype() == f32 && !options_.allow_f32)
      throw DTypeError(
          fmt::format("check_gradients: {} is f32, too coarse for differences; convert it with "
                      "to(f64), or set allow_f32 with a larger step and tolerances",
                      variable.name));
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
    const Tensor y = f_(arguments);
    if (!y.defined() || !is_real(y.dtype()))
      throw DTypeError("check_gradients: the result of the function must be f32 or f64");
    return {y};
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
    if (output == of_order.size())
      of_order.push_back(rng_.normal(like.shape(), 0, 1, like.dtype()));
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
    v.entry->value = value;
    Numbers result = outputs_at(order, std::move(arguments));
    v.entry->value = v.start;
    return result;
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

  // Returns whether two evaluations agreed.
  bool check_order(int order) {
    const auto analytic = analytic_gradients(order), again = analytic_gradients(order);
    base_ = outputs_at(order, arguments_);
    const bool same_result = same_bits(base_, outputs_at(order, arguments_));
    bool deterministic = true;
    for (std::size_t i = 0; i < variables_.size(); ++i) {
      const Variable& v = variables_[i];
      GradientReport::Row row;
      row.name = v.name;
      row.shape = v.start.shape();
      row.order = order;
      if (!same_result || !same_bits(analytic[i], again[i])) {
        row.verdict = Verdict::not_deterministic;
        row.where = same_result ? "two gradients differ" : "two results differ";
        deterministic = false;
      } else if (options_.mode == GradcheckOptions::Mode::slow) {
        check_coordinates(v, analytic[i], row);
      } else {
        check_directions(v, analytic[i], row);
      }
      report_.rows.push_back(std::move(row));
    }
    return deterministic;
  }

  void check_coordinates(const Variable& v, const Numbers& analytic, GradientReport::Row& row) {
    Numbers direction(analytic.size());
    for (std::size_t j = 0; j < analytic.size(); ++j) {
      direction[j] = 1;
      const Index flat = static_cast<Index>(j);
      if (judge(analytic[j], slopes(row.order, v, direction), row)) {
        row.coordinate = flat;
        row.where = options_.coordinate_name ? options_.coordinate_name(v.name, row.shape, flat)
                                             : default_name(v.name, row.shape, flat);
      }
      direction[j] = 0;
    }
  }

  void check_directions(const Variable& v, const Numbers& analytic, GradientReport::Row& row) {
    if (analytic.empty()) return;
    for (int d = 0; d < options_.directions; ++d) {
      Numbers direction(analytic.size());
      for (double& u : direction) u = rng_.normal();
      const double norm = std::sqrt(dot(direction, direction));
      for (double& u : direction) u /= norm;
      if (judge(dot(analytic, direction), slopes(row.order, v, direction), row))
        row.where = fmt::format("{}, direction {}", v.name, d);
    }
  }

  Slopes slopes(int order, const Variable& v, const Numbers& direction) {
    const double h = options_.step;
    const Numbers after = outputs_at(order, v, direction, h),
                  far_after = outputs_at(order, v, direction, 2 * h),
                  before = outputs_at(order, v, direction, -h),
                  far_before = outputs_at(order, v, direction, -2 * h);
    const auto& cotangents = cotangents_[static_cast<std::size_t>(order) - 1];
    const Numbers c = flat(cotangents);
    Slopes s{0, 0, 0};
    // Differences first: elements that did not change contribute an exact zero.
    for (std::size_t i = 0; i < c.size(); ++i) {
      s.central += c[i] * (8 * (after[i] - before[i]) - (far_after[i] - far_before[i]));
      s.right += c[i] * (4 * (after[i] - base_[i]) - (far_after[i] - base_[i]));
      s.left += c[i] * (4 * (base_[i] - before[i]) - (base_[i] - far_before[i]));
    }
    return {s.central / (12 * h), s.left / (2 * h), s.right / (2 * h)};
  }

  Verdict verdict(double analytic, const Slopes& s) const {
    if (!std::isfinite(analytic) || !std::isfinite(s.central)) return Verdict::not_finite;
    if (std::abs(analytic - s.central) <= tolerance(analytic, s.central)) return Verdict::ok;
    const auto [low, high] = std::minmax(s.left, s.right);
    const double gap = high - low, margin = gap / 20;
    const bool differ = gap > 1e-4 * std::max(std::abs(low), std::abs(high));
    const bool between = analytic >= low - margin && analytic <= high + margin;
    return differ && between ? Verdict::kink : Verdict::wrong;
  }

  double tolerance(double analytic, double numeric) const {
    return options_.atol + options_.rtol * std::max(std::abs(analytic), std::abs(numeric));
  }

  // Notes one comparison in the row, and returns whether it is the worst so far.
  bool judge(double analytic, const Slopes& s, GradientReport::Row& row) {
    const Verdict v = verdict(analytic, s);
    const double error = std::abs(analytic - s.central);
    const bool first = row.checked++ == 0;
    if (v != Verdict::ok) ++row.failures;
    const bool worse =
        error * tolerance(row.analytic, row.numeric) > row.error * tolerance(analytic, s.central);
    if (!first && (v < row.verdict || (v == row.verdict && !worse))) return false;
    row.analytic = analytic;
    row.numeric = s.central;
    row.error = error;
    row.verdict = v;
    return true;
  }

  const TensorFunction& f_;
  const GradcheckOptions& options_;
  RestoredParams restored_;
  Rng rng_;
  std::vector<Variable> variables_;
  std::vector<Tensor> arguments_;
  std::vector<std::vector<Tensor>> cotangents_;  // by order, then by output
  Numbers base_;                                 // the outputs where nothing is moved
  GradientReport report_;
};

}  // namespace

std::string GradientReport::str() const {
  using Cells = std::array<std::string, 9>;
  std::vector<Cells> table{
      {"input", "shape", "order", "verdict", "failed", "analytic", "numeric", "error", "worst"}};
  Index failed = 0;
  for (const Row& row : rows) {
    failed += row.verdict != Verdict::ok;
    table.push_back({row.name, row.shape.str(), std::to_string(row.order), word(row.verdict),
                     fmt::format("{}/{}", row.failures, row.checked),
                     fmt::format("{:.15g}", row.analytic), fmt::format("{:.15g}", row.numeric),
                     fmt::format("{:.1e}", row.error), row.where});
  }
  std::array<std::size_t, 9> widths{};
  for (const Cells& cells : table)
    for (std::size_t c = 0; c < cells.size(); ++c) widths[c] = std::max(widths[c], cells[c].size());
  std::string text = fmt::format("gradients: {} of {} checks failed\n", failed, rows.size());
  for (const Cells& cells : table) {
    for (std::size_t c = 0; c + 1 < cells.size(); ++c)
      text += cells[c] + std::string(widths[c] - cells[c].size() + 2, ' ');
    text += cells.back() + '\n';
  }
  return text;
}

GradientReport check_gradients(const TensorFunction& loss, const Params& params,
                               const std::vector<NamedTensor>& inputs,
                               const GradcheckOptions& options) {
  return Checker(loss, params, inputs, options).run();
}

GradientReport check_gradients(const TensorFunction& f, const std::vector<NamedTensor>& inputs,
                               const GradcheckOptions& options) {
  return check_gradients(f, Params(), inputs, options);
}

GradientReport check_gradients(const TensorFunction& f, const std::vector<Tensor>& inputs,
                               const GradcheckOptions& options) {
  std::vector<NamedTensor> named;
  for (const Tensor& x : inputs) named.push_back({fmt::format("x{}", named.size()), x});
  return check_gradients(f, named, options);
}

GradientReport check_gradients(const std::function<Tensor()>& loss, const Params& params,
                               const GradcheckOptions& options) {
  return check_gradients([&](std::span<const Tensor>) { return loss(); }, params, {}, options);
}

}  // namespace reel
