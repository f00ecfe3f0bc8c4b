#include <algorithm>
#include <cmath>

#include "references.h"

namespace reel::testing {
namespace {

struct ClassTargets {
  double smoothing = 0;
  std::int32_t ignored = 0;
  bool ignores = false;
};
struct Number {
  double value;
};

Arrays single(double value) { return {Array(Shape{}, value)}; }

// ln p of each class of a row of logits.
std::vector<double> log_softmax(const double* x, Index classes) {
  const double top = *std::max_element(x, x + classes);
  double total = 0;
  for (Index i = 0; i < classes; ++i) total += std::exp(x[i] - top);
  std::vector<double> y;
  for (Index i = 0; i < classes; ++i) y.push_back((x[i] - top) - std::log(total));
  return y;
}

// Σ p ((1 - e) c[t] (-l[t]) + e / V Σ c (-l)) / Σ p c[t]; what has weight 0 does not count.
template <bool from_logits>
Arrays class_loss(const Arrays& in, const ClassTargets& attr) {
  const Index classes = in[3].size(), rows = in[1].size();
  const double share = attr.smoothing / static_cast<double>(classes);
  double sum = 0, weights = 0;
  for (Index r = 0; r < rows; ++r) {
    const auto target = static_cast<Index>(in[1][r]);
    if (attr.ignores && target == attr.ignored) continue;
    const double* x = in[0].x.data() + r * classes;
    const auto l = from_logits ? log_softmax(x, classes) : std::vector<double>(x, x + classes);
    const auto part = [&](double weight, Index i) {
      return weight == 0 ? 0 : weight * -l[static_cast<std::size_t>(i)];
    };
    double loss = part((1 - attr.smoothing) * in[3][target], target);
    for (Index i = 0; i < classes && attr.smoothing != 0; ++i) loss += part(share * in[3][i], i);
    if (in[2][r] != 0) sum += in[2][r] * loss;
    weights += in[2][r] * in[3][target];
  }
  return single(sum / weights);
}

Arrays soft_cross_entropy(const Arrays& in) {
  const Index rows = in[2].size(), classes = in[0].size() / rows;
  double sum = 0, weights = 0;
  for (Index r = 0; r < rows; ++r) {
    const auto l = log_softmax(in[0].x.data() + r * classes, classes);
    for (Index i = 0; i < classes; ++i)
      if (const double q = in[1][r * classes + i]; q != 0 && in[2][r] != 0)
        sum += in[2][r] * q * -l[static_cast<std::size_t>(i)];
    weights += in[2][r];
  }
  return single(sum / weights);
}

// Σ w f(x, t) / Σ w: weights count for all elements that they lead to, which are so many positions
// as elements, or rows of the last axis.
template <class F>
Arrays weighted_mean(const Arrays& in, bool rows, F f) {
  const Index length = in[0].size() / std::max<Index>(in[2].size(), 1);
  const Shape& shape = in[0].shape;
  const double positions = static_cast<double>(rows ? length / shape[shape.rank() - 1] : length);
  double sum = 0, weights = 0;
  for (Index i = 0; i < in[0].size(); ++i)
    if (const double w = in[2][i / length]; w != 0) sum += w * f(in[0][i], in[1][i]);
  for (double w : in[2].x) weights += w * positions;
  return single(sum / weights);
}

template <class F>
Reference pointwise(F f) {
  return reference([f](const Arrays& in) -> Arrays { return weighted_mean(in, false, f); });
}

double huber(double d, double delta) {
  return std::abs(d) <= delta ? d * d / 2 : delta * (std::abs(d) - delta / 2);
}

// -w t ln σ(x) - (1 - t) ln(1 - σ(x)), where 0 times infinity is 0.
double bce(double x, double t, double w) {
  const auto minus_log_sigmoid = [](double z) {
    return z > 0 ? std::log1p(std::exp(-z)) : std::log1p(std::exp(z)) - z;
  };
  const auto part = [](double weight, double loss) { return weight == 0 ? 0 : weight * loss; };
  return part(w * t, minus_log_sigmoid(x)) + part(1 - t, minus_log_sigmoid(-x));
}

}  // namespace

void add_loss_references(References& table) {
  table["cross_entropy"] = reference<ClassTargets>(class_loss<true>);
  table["nll"] = reference<ClassTargets>(class_loss<false>);
  table["soft_cross_entropy"] = reference(soft_cross_entropy);
  table["mse"] = pointwise([](double x, double t) { return (x - t) * (x - t); });
  table["l1"] = pointwise([](double x, double t) { return std::abs(x - t); });
  table["huber"] = reference<Number>([](const Arrays& in, const Number& delta) -> Arrays {
    return weighted_mean(in, false, [&](double x, double t) { return huber(x - t, delta.value); });
  });
  table["bce_with_logits"] = reference<Number>([](const Arrays& in, const Number& w) -> Arrays {
    return weighted_mean(in, false, [&](double x, double t) { return bce(x, t, w.value); });
  });
  table["kl_div"] = reference([](const Arrays& in) -> Arrays {
    return weighted_mean(in, true,
                         [](double l, double t) { return t == 0 ? 0 : t * (std::log(t) - l); });
  });
}

}  // namespace reel::testing
