#include <algorithm>
#include <cmath>

#include <reel/autograd/ops.h>

#include "references.h"

namespace reel::testing {
namespace {

struct ClassTargets {
  double smoothing = 0;
  std::int32_t ignored = 0;
  bool ignores = false;
  LossReduction reduction = LossReduction::mean;
};
struct SoftTargets {
  double smoothing = 0;
  LossReduction reduction = LossReduction::mean;
};
template <class Attr>
struct Call {
  Attr attr;
  LossReduction reduction;
};

// A mean, or the plain sum.
Arrays result(double sum, double weights, LossReduction reduction) {
  return {Array(Shape{}, reduction == LossReduction::mean ? sum / weights : sum)};
}
// A weight, 1 if there are none.
double weight_at(const Array& weights, Index i) { return weights.given() ? weights[i] : 1; }
// Terms of weight 0 are skipped.
double part(double weight, double loss) { return weight == 0 ? 0 : weight * loss; }

// ln p of each class of a row of logits; an infinite one gets probability 1.
std::vector<double> log_softmax(const double* x, Index classes) {
  const double top = *std::max_element(x, x + classes);
  std::vector<double> y;
  double others = 0;  // without the largest
  bool met = false;
  for (Index i = 0; i < classes; ++i) {
    y.push_back(x[i] == INFINITY ? 0 : x[i] - top);
    if (met || y.back() != 0) others += std::exp(y.back());
    met = met || y.back() == 0;
  }
  for (double& value : y) value -= std::log1p(others);
  return y;
}

// Σ p ((1 - e) c[t] (-l[t]) + e / V Σ c (-l)) / Σ p c[t]; terms of weight 0 are skipped.
template <bool from_logits>
Arrays class_loss(const Arrays& in, const ClassTargets& attr) {
  const Index rows = in[1].size(), classes = in[0].shape[in[0].shape.rank() - 1];
  const double share = attr.smoothing / static_cast<double>(classes);
  double sum = 0, weights = 0;
  for (Index r = 0; r < rows; ++r) {
    const auto target = static_cast<Index>(in[1][r]);
    if (attr.ignores && target == attr.ignored) continue;
    const double* x = in[0].x.data() + r * classes;
    const auto l = from_logits ? log_softmax(x, classes) : std::vector<double>(x, x + classes);
    const auto of_class = [&](double weight, Index i) {
      return part(weight, -l[static_cast<std::size_t>(i)]);
    };
    const double weight = weight_at(in[2], r), target_weight = weight_at(in[3], target);
    double loss = of_class((1 - attr.smoothing) * target_weight, target);
    for (Index i = 0; i < classes && attr.smoothing != 0; ++i)
      loss += of_class(share * weight_at(in[3], i), i);
    sum += part(weight, loss);
    weights += weight * target_weight;
  }
  return result(sum, weights, attr.reduction);
}

// The same from the logits x wᵀ + b.
Arrays linear_loss(const Arrays& in, const ClassTargets& attr) {
  const Array &x = in[0], &w = in[1], &b = in[2], &targets = in[3];
  const Index classes = w.shape[0], features = w.shape[1];
  Array logits(targets.shape.insert(targets.shape.rank(), classes), 0.0);
  for (Index i = 0; i < logits.size(); ++i) {
    const Index row = i / classes, k = i % classes;
    logits[i] = b.given() ? b[k] : 0;
    for (Index f = 0; f < features; ++f) logits[i] += x[row * features + f] * w[k * features + f];
  }
  return class_loss<true>({logits, targets, in[4], Array()}, attr);
}

// Σ p Σ c ((1 - e) q + e / V) (-l) / Σ p
Arrays soft_cross_entropy(const Arrays& in, const SoftTargets& attr) {
  const Index classes = in[0].shape[in[0].shape.rank() - 1], rows = in[0].size() / classes;
  double sum = 0, weights = 0;
  for (Index r = 0; r < rows; ++r) {
    const auto l = log_softmax(in[0].x.data() + r * classes, classes);
    double loss = 0;
    for (Index i = 0; i < classes; ++i) {
      const double q = (1 - attr.smoothing) * in[1][r * classes + i] +
                       attr.smoothing / static_cast<double>(classes);
      loss += part(weight_at(in[3], i) * q, -l[static_cast<std::size_t>(i)]);
    }
    sum += part(weight_at(in[2], r), loss);
    weights += weight_at(in[2], r);
  }
  return result(sum, weights, attr.reduction);
}

// Σ w f(x, t) / Σ w: weights apply to all elements under them; positions are elements, or rows of
// the last axis.
template <class F>
Arrays weighted_mean(const Arrays& in, LossReduction reduction, bool rows, F f) {
  const Index length = in[0].size() / std::max<Index>(in[2].size(), 1);
  const Shape& shape = in[0].shape;
  const double positions = static_cast<double>(rows ? length / shape[shape.rank() - 1] : length);
  double sum = 0, weights = 0;
  for (Index i = 0; i < in[0].size(); ++i)
    if (const double w = weight_at(in[2], i / length); w != 0) sum += w * f(in[0][i], in[1][i]);
  for (Index run = 0; run < (in[2].given() ? in[2].size() : 1); ++run)
    weights += weight_at(in[2], run) * positions;
  return result(sum, weights, reduction);
}

// For f(x, t), or f(x, t, number) with a numeric attribute.
template <class F>
Reference pointwise(F f, bool rows = false) {
  if constexpr (std::is_invocable_v<F, double, double>)
    return reference<Call<NoAttr>>([=](const Arrays& in, const Call<NoAttr>& call) -> Arrays {
      return weighted_mean(in, call.reduction, rows, f);
    });
  else
    return reference<Call<double>>([=](const Arrays& in, const Call<double>& call) -> Arrays {
      return weighted_mean(in, call.reduction, rows,
                           [&](double x, double t) { return f(x, t, call.attr); });
    });
}

double huber(double x, double t, double delta) {
  const double d = x - t;
  return std::abs(d) <= delta ? d * d / 2 : delta * (std::abs(d) - delta / 2);
}

double pinball(double x, double t, double q) { return t > x ? q * (t - x) : (1 - q) * (x - t); }

// -w t ln σ(x) - (1 - t) ln(1 - σ(x)), where 0 times infinity is 0.
double bce(double x, double t, double w) {
  const auto minus_log_sigmoid = [](double z) {
    return z > 0 ? std::log1p(std::exp(-z)) : std::log1p(std::exp(z)) - z;
  };
  return part(w * t, minus_log_sigmoid(x)) + part(1 - t, minus_log_sigmoid(-x));
}

}  // namespace

void add_loss_references(References& table) {
  table["cross_entropy"] = reference<ClassTargets>(class_loss<true>);
  table["linear_cross_entropy"] = reference<ClassTargets>(linear_loss);
  table["nll"] = reference<ClassTargets>(class_loss<false>);
  table["soft_cross_entropy"] = reference<SoftTargets>(soft_cross_entropy);
  table["mse"] = pointwise([](double x, double t) { return (x - t) * (x - t); });
  table["l1"] = pointwise([](double x, double t) { return std::abs(x - t); });
  table["huber"] = pointwise(huber);
  table["pinball"] = pointwise(pinball);
  table["bce_with_logits"] = pointwise(bce);
  table["kl_div"] =
      pointwise([](double l, double t) { return t == 0 ? 0 : t * (std::log(t) - l); }, true);
}

}  // namespace reel::testing
