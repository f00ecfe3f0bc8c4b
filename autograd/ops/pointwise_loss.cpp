#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops/loss_terms.h>

// Losses that are a weighted mean or sum of f(x, t) over the elements x of a prediction and t of a
// target. Each is a struct: f, its slopes, f in ops, and whether a position is a row or an element.
namespace reel {
using namespace op;
namespace {

using detail::product;
using detail::skipped;
using detail::unless_zero;
using detail::weight_slope;

template <class T>
struct Slopes {
  T x, target;
};

struct L1 {
  using Attr = NoAttr;
  static constexpr const char* name = "l1";
  static constexpr bool rows = false;

  template <class T>
  static T value(T x, T t, NoAttr) {
    return std::abs(x - t);
  }
  template <class T>
  static Slopes<T> slopes(T x, T t, NoAttr) {
    const T sign = static_cast<T>((x > t) - (x < t));
    return {sign, -sign};
  }
  static Tensor in_ops(const Tensor& x, const Tensor& t, NoAttr) { return abs(x - t); }
};

struct Mse {
  using Attr = NoAttr;
  static constexpr const char* name = "mse";
  static constexpr bool rows = false;

  template <class T>
  static double value(T x, T t, NoAttr) {
    const auto d = static_cast<double>(x - t);  // whose square may overflow a float
    return d * d;
  }
  template <class T>
  static Slopes<T> slopes(T x, T t, NoAttr) {
    return {2 * (x - t), 2 * (t - x)};
  }
  static Tensor in_ops(const Tensor& x, const Tensor& t, NoAttr) { return square(x - t); }
};

struct Threshold {
  double delta;
};

// With c, the difference clamped to ±delta: c (d - c / 2).
struct Huber {
  using Attr = Threshold;
  static constexpr const char* name = "huber";
  static constexpr bool rows = false;

  template <class T>
  static T cut(T d, const Threshold& a) {
    return std::clamp(d, static_cast<T>(-a.delta), static_cast<T>(a.delta));
  }
  template <class T>
  static double value(T x, T t, const Threshold& a) {
    const auto d = static_cast<double>(x - t), c = static_cast<double>(cut(x - t, a));
    return c * (d - c / 2);
  }
  template <class T>
  static Slopes<T> slopes(T x, T t, const Threshold& a) {
    return {cut(x - t, a), -cut(x - t, a)};
  }
  static Tensor in_ops(const Tensor& x, const Tensor& t, const Threshold& a) {
    const Tensor d = x - t, delta = scalar(a.delta, d.dtype());
    const Tensor c = maximum(minimum(d, delta), -delta);
    return c * (d - 0.5 * c);
  }
};

struct Level {
  double quantile;
};

// max(q d, (q - 1) d) with d = t - x.
struct Pinball {
  using Attr = Level;
  static constexpr const char* name = "pinball";
  static constexpr bool rows = false;

  template <class T>
  static T factor(T d, const Level& a) {
    const T q = static_cast<T>(a.quantile);
    return d > 0 ? q : d < 0 ? q - 1 : T(0);
  }
  template <class T>
  static T value(T x, T t, const Level& a) {
    return factor(t - x, a) * (t - x);
  }
  template <class T>
  static Slopes<T> slopes(T x, T t, const Level& a) {
    const T f = factor(t - x, a);
    return {-f, f};
  }
  static Tensor in_ops(const Tensor& x, const Tensor& t, const Level& a) {
    return a.quantile * relu(t - x) + (1 - a.quantile) * relu(x - t);
  }
};

struct PositiveWeight {
  double weight = 1;
};

// -w t ln σ(x) - (1 - t) ln(1 - σ(x)) = w t softplus(-x) + (1 - t) softplus(x)
struct BceWithLogits {
  using Attr = PositiveWeight;
  static constexpr const char* name = "bce_with_logits";
  static constexpr bool rows = false;

  // The factors of softplus(-x) and softplus(x), and what both add to max(-x, 0) or max(x, 0).
  template <class T>
  struct Parts {
    T positive, negative, common;
    Parts(T x, T t, const PositiveWeight& a)
        : positive(static_cast<T>(a.weight) * t),
          negative(1 - t),
          common(kernels::vsoftplus_rest(x)) {}
  };
  template <class T>
  [[gnu::always_inline]] static T value(T x, T t, const PositiveWeight& a) {
    const Parts<T> p(x, t, a);
    const T factor = x < 0 ? p.positive : p.negative;  // 0 times an infinity counts as 0
    return (factor == 0 ? T(0) : factor * std::abs(x)) + (p.positive + p.negative) * p.common;
  }
  template <class T>
  [[gnu::always_inline]] static Slopes<T> slopes(T x, T t, const PositiveWeight& a) {
    const Parts<T> p(x, t, a);
    const T w = static_cast<T>(a.weight);
    return {p.negative * kernels::vsigmoid(x) - p.positive * kernels::vsigmoid(-x),
            (w - 1) * p.common - (x >= 0   ? x
                                  : w == 0 ? T(0)
                                           : w * x)};
  }
  static Tensor in_ops(const Tensor& x, const Tensor& t, const PositiveWeight& a) {
    return product(a.weight * t, softplus(-x)) + product(1 - t, softplus(x));
  }
};

// t ln t - t x, with 0 ln 0 = 0, over rows of log-probabilities x and probabilities t.
struct KlDiv {
  using Attr = NoAttr;
  static constexpr const char* name = "kl_div";
  static constexpr bool rows = true;

  template <class T>
  static T value(T x, T t, NoAttr) {
    return t == 0 ? T(0) : t * (kernels::vlog(t) - x);
  }
  template <class T>
  static Slopes<T> slopes(T x, T t, NoAttr) {
    return {-t, t == 0 ? -x : kernels::vlog(t) - x + 1};
  }
  static Tensor in_ops(const Tensor& x, const Tensor& t, NoAttr) {
    const Tensor absent = equal(t, scalar(0, t.dtype()));
    return product(t, log(masked_fill(t, absent, 1)) - x);
  }
};

// The weight of a run; 1 if no weights were given.
template <class T>
double weight_of(const T* weights, Index run) {
  return weights ? static_cast<double>(weights[run]) : 1;
}

// The elements in runs that share a weight; each run counts as a number of positions. Without
// weights all are one run.
struct Runs {
  Index count, length;
  double positions;

  Runs(const Shape& x, const Shape& weights, bool rows)
      : count(weights.size()), length(x.stride(weights.rank() - 1)) {
    positions = static_cast<double>(rows ? length / x[x.rank() - 1] : length);
  }
  template <class T>
  double total(const T* weights) const {
    return positions * (weights ? std::accumulate(weights, weights + count, 0.0) : 1);
  }
};

// A loss's attributes, and whether it is a mean or a sum.
template <class Loss>
struct Call {
  typename Loss::Attr attr{};
  LossReduction reduction = LossReduction::mean;

  bool mean() const { return reduction == LossReduction::mean; }
};

template <class Loss, class T>
double run_loss(const Runs& runs, Index run, const T* x, const T* targets,
                const typename Loss::Attr& attr) {
  constexpr Index chunk = 128;
  std::array<double, chunk> values;
  double sum = 0;
  const Index end = (run + 1) * runs.length;
  for (Index begin = run * runs.length; begin < end; begin += chunk) {
    const Index n = std::min(chunk, end - begin), filled = (n + 7) / 8 * 8;
    double* const value = values.data();
    for (Index i = 0; i < n; ++i)
      value[i] = static_cast<double>(Loss::value(x[begin + i], targets[begin + i], attr));
    std::fill(value + n, value + filled, 0.0);
    std::array<double, 8> lanes{};  // partial sums, added in a fixed order
    for (Index i = 0; i < filled; i += 8)
      for (std::size_t l = 0; l < 8; ++l) lanes[l] += value[i + static_cast<Index>(l)];
    sum += ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  }
  return sum;
}

template <class Loss>
Shape loss_shape(const Arguments& in, const Call<Loss>& call) {
  const int last = in[0].rank() - 1;
  if (in[1] != in[0])
    in.fail("the targets must have the shape of x; loss functions do not broadcast");
  if (Loss::rows && last < 0) in.fail("there must be an axis of classes");
  const int free = Loss::rows ? last : last + 1;
  if (in[2].rank() > free || !std::equal(in[2].begin(), in[2].end(), in[0].begin()))
    in.fail(Loss::rows ? "the weights must have leading axes of x, at most all but the last"
                       : "the weights must have leading axes of x");
  if (Loss::rows && in[0][last] == 0) in.fail<ValueError>("there are no classes");
  if (in[0].size() == 0 && call.mean()) in.fail<ValueError>("there is nothing to average");
  return {};
}

template <class Loss, class T>
void loss_value(Ctx<T> c, const Call<Loss>& call) {
  const Runs runs(c.shape(0), c.shape(2), Loss::rows);
  const T *x = c.in(0).data(), *targets = c.in(1).data(), *weights = c.in(2).data();
  const double total = call.mean() ? runs.total(weights) : 1;
  if (total == 0)
    throw ValueError(
        fmt::format("{}: there is nothing to average: the weights sum to 0", Loss::name));
  double sum = 0;
  for (Index r = 0; r < runs.count; ++r)
    sum += unless_zero(weight_of(weights, r),
                       [&] { return run_loss<Loss>(runs, r, x, targets, call.attr); });
  c.out()[0] = static_cast<T>(sum / total);
}

template <class Loss, class T>
void loss_gradient(BackwardCtx<T> c, const Call<Loss>& call) {
  const Runs runs(c.shape(0), c.shape(2), Loss::rows);
  const T *x = c.in(0), *targets = c.in(1), *weights = c.in(2);
  const double scale = static_cast<double>(*c.g()) / (call.mean() ? runs.total(weights) : 1);
  T *dx = c.grad(0), *dt = c.grad(1), *dw = c.grad(2);
  for (Index r = 0; (dx || dt) && r < runs.count; ++r) {
    const T factor = static_cast<T>(scale * weight_of(weights, r));
    const Index begin = r * runs.length, end = begin + runs.length;
    if (dx && factor == 0) std::fill_n(dx + begin, runs.length, T(0));
    if (dt && factor == 0) std::fill_n(dt + begin, runs.length, T(0));
    if (factor == 0) continue;
    for (Index i = begin; dx && i < end; ++i)
      dx[i] = factor * Loss::slopes(x[i], targets[i], call.attr).x;
    for (Index i = begin; dt && i < end; ++i)
      dt[i] = factor * Loss::slopes(x[i], targets[i], call.attr).target;
  }
  const double average = call.mean() ? static_cast<double>(*c.out()) : 0;
  for (Index r = 0; dw && r < runs.count; ++r)
    dw[r] = static_cast<T>(scale * weight_slope(weight_of(weights, r),
                                                run_loss<Loss>(runs, r, x, targets, call.attr),
                                                average * runs.positions));
}

template <class Loss>
Tensors loss_in_ops(std::span<const Tensor> in, const Call<Loss>& call) {
  const Runs runs(in[0].shape(), in[2].shape(), Loss::rows);
  const auto losses_of = [&](const Tensor& x, const Tensor& targets) {
    return sum(reshape(Loss::in_ops(x, targets, call.attr), {runs.count, runs.length}), 1);
  };
  Tensor weights = in[2].defined() ? reshape(in[2], {runs.count}) : ones({1}, in[0].dtype());
  const Tensor skip = skipped(weights, losses_of(in[0].detach(), in[1].detach()));
  const auto counted = [&](const Tensor& x) {
    const Tensor elements = reshape(x, {runs.count, runs.length});
    return reshape(masked_fill(elements, expand(skip, -1), 0), x.shape());
  };
  weights = masked_fill(weights, skip, 0);
  const Tensor total = sum(losses_of(counted(in[0]), counted(in[1])) * weights);
  return {call.mean() ? total / (runs.positions * sum(weights)) : total};
}

template <class Loss>
Definition<Call<Loss>> pointwise(const Samples<Call<Loss>>& samples) {
  return {.name = Loss::name,
          .arguments = {"x", "targets", optional("weights")},
          .shape = [](const Arguments& in, const Call<Loss>& call) -> Shape {
            return loss_shape<Loss>(in, call);
          },
          .forward = []<Real T>(Ctx<T> c, const Call<Loss>& call) { loss_value<Loss>(c, call); },
          .gradient = fused([]<Real T>(BackwardCtx<T> c,
                                       const Call<Loss>& call) { loss_gradient<Loss>(c, call); },
                            [](std::span<const Tensor> in, const Call<Loss>& call) {
                              return loss_in_ops<Loss>(in, call);
                            }),
          .samples = samples};
}

REEL_EARLY const Op<Call<L1>> l1_op{pointwise<L1>({
    with_inputs(distinct({2, 3}), positive({2, 3}), positive({2})),
    with_inputs(positive({2, 3}), distinct({2, 3}), positive({2, 3})),
    with_inputs(values({1, -2, 3}), values({0.5, 1, 700}), positive({})),
    with_inputs(distinct({}), positive({}), positive({})),
    with_inputs(distinct({2, 3}), positive({2, 3}), absent()),
    with_inputs(distinct({1, 1}), positive({1, 1}), positive({1})),
    with_inputs(distinct({3}), positive({3}), positive({3})).attr(Call<L1>{{}, LossReduction::sum}),
})};

REEL_EARLY const Op<Call<Mse>> mse_op{pointwise<Mse>({
    with_inputs(normal({3, 4}), normal({3, 4}), positive({})),
    with_inputs(normal({2, 3, 2}), normal({2, 3, 2}), positive({2, 3})),
    with_inputs(normal({7}), normal({7}), positive({7})),
    with_inputs(normal({2, 3}), normal({2, 3}), absent()),
    with_inputs(normal({2, 3}), normal({2, 3}), absent()).attr(Call<Mse>{{}, LossReduction::sum}),
    with_inputs(normal({}), normal({}), positive({})),
    with_inputs(normal({1, 1}), normal({1, 1}), positive({1})),
    with_inputs(normal({3}), normal({3}), positive({3})).attr(Call<Mse>{{}, LossReduction::sum}),
})};

REEL_EARLY const Op<Call<Huber>> huber_op{pointwise<Huber>({
    with_inputs(values({0.2, -0.3, 2, -700, 0.1}), values({0, 0, 0, 1, 0.5}), positive({5}))
        .attr(Call<Huber>{{1}}),
    with_inputs(distinct({2, 3}), distinct({2, 3}), positive({2})).attr(Call<Huber>{{2}}),
    with_inputs(distinct({2, 3}), positive({2, 3}), positive({2, 3})).attr(Call<Huber>{{0.1}}),
    with_inputs(normal({}), normal({}), positive({})).attr(Call<Huber>{{9}}),
    with_inputs(normal({1, 17}), normal({1, 17}), absent()).attr(Call<Huber>{{9}}),
})};

REEL_EARLY const Op<Call<Pinball>> pinball_op{pointwise<Pinball>({
    with_inputs(distinct({2, 3}), positive({2, 3}), positive({2})).attr(Call<Pinball>{{0.1}}),
    with_inputs(values({1, -2, 3}), values({0.5, 1, 700}), positive({})).attr(Call<Pinball>{{0.5}}),
    with_inputs(positive({2, 3}), distinct({2, 3}), positive({2, 3})).attr(Call<Pinball>{{0.9}}),
    with_inputs(distinct({}), positive({}), positive({})).attr(Call<Pinball>{{0.75}}),
    with_inputs(distinct({1, 17}), positive({1, 17}), absent()).attr(Call<Pinball>{{0.2}}),
    with_inputs(distinct({3}), positive({3}), positive({3}))
        .attr(Call<Pinball>{{0.3}, LossReduction::sum}),
})};

REEL_EARLY const Op<Call<BceWithLogits>> bce_with_logits_op{pointwise<BceWithLogits>({
    with_inputs(normal({3, 4}), normal({3, 4}), positive({3})),
    with_inputs(normal({2, 1, 3}), positive({2, 1, 3}), positive({2, 1, 3}))
        .attr(Call<BceWithLogits>{{3}}),
    with_inputs(values({700, -700, 0, 0.5}), values({0.2, 0.9, 1, 0}), positive({})),
    with_inputs(normal({}), normal({}), positive({})).attr(Call<BceWithLogits>{{0.25}}),
    with_inputs(normal({17}), normal({17}), absent()),
})};

REEL_EARLY const Op<Call<KlDiv>> kl_div_op{pointwise<KlDiv>({
    with_inputs(normal({3, 4}), positive({3, 4}), positive({3})),
    with_inputs(normal({2, 3, 2}), positive({2, 3, 2}), positive({2})),
    with_inputs(normal({5}), positive({5}), positive({})),
    with_inputs(normal({4, 1}), positive({4, 1}), positive({})),
    with_inputs(normal({3, 2}), positive({3, 2}), absent()),
    with_inputs(values({-700, -1, 0}), values({0.1, 0.5, 0.4}), positive({})),
    with_inputs(normal({3, 4}), positive({3, 4}), positive({3}))
        .attr(Call<KlDiv>{{}, LossReduction::sum}),
})};

}  // namespace

Tensor l1(const Tensor& x, const Tensor& targets, const LossOptions& options, Site site) {
  return l1_op({&x, &targets, &options.weights}, {{}, options.reduction}, site);
}

Tensor mse(const Tensor& x, const Tensor& targets, const LossOptions& options, Site site) {
  return mse_op({&x, &targets, &options.weights}, {{}, options.reduction}, site);
}

Tensor huber(const Tensor& x, const Tensor& targets, Arg<double> delta, const LossOptions& options,
             Site site) {
  if (!(delta > 0))
    throw ValueError(fmt::format("huber: delta must be positive, not {}", delta), site);
  if (x.defined() && x.dtype() == f32 && delta < double{std::numeric_limits<float>::min()})
    throw ValueError(fmt::format("huber: delta {} is 0 in f32; convert x with to(f64)", delta),
                     site);
  return huber_op({&x, &targets, &options.weights}, {{delta}, options.reduction}, site);
}

Tensor pinball(const Tensor& x, const Tensor& targets, Arg<double> quantile,
               const LossOptions& options, Site site) {
  if (!(quantile > 0 && quantile < 1))
    throw ValueError(fmt::format("pinball: the quantile must be between 0 and 1, not {}", quantile),
                     site);
  return pinball_op({&x, &targets, &options.weights}, {{quantile}, options.reduction}, site);
}

Tensor bce_with_logits(const Tensor& logits, const Tensor& targets, const BceOptions& options,
                       Site site) {
  if (!(options.positive_weight >= 0) || std::isinf(options.positive_weight))
    throw ValueError(
        fmt::format("bce_with_logits: the positive weight must be finite and not negative, not {}",
                    options.positive_weight),
        site);
  return bce_with_logits_op({&logits, &targets, &options.weights},
                            {{options.positive_weight}, options.reduction}, site);
}

Tensor kl_div(const Tensor& log_probabilities, const Tensor& targets, const LossOptions& options,
              Site site) {
  return kl_div_op({&log_probabilities, &targets, &options.weights}, {{}, options.reduction}, site);
}

}  // namespace reel

namespace reel::op::linked {
void pointwise_loss() {}
}  // namespace reel::op::linked
