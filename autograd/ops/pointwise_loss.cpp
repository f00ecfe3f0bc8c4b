#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops.h>

// Losses that are a weighted mean of f(x, t) over the elements x of a prediction and t of a target.
// Each is a struct: f, its slopes, f in ops, and whether a position is a row or an element.
namespace reel {
using namespace op;
namespace {

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
  static T value(T x, T t, NoAttr) {
    return (x - t) * (x - t);
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

// With c, the difference cut off at ±delta: c (d - c / 2).
struct Huber {
  using Attr = Threshold;
  static constexpr const char* name = "huber";
  static constexpr bool rows = false;

  template <class T>
  static T cut(T d, const Threshold& a) {
    return std::clamp(d, static_cast<T>(-a.delta), static_cast<T>(a.delta));
  }
  template <class T>
  static T value(T x, T t, const Threshold& a) {
    return cut(x - t, a) * (x - t - cut(x - t, a) / 2);
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

struct PositiveWeight {
  double weight = 1;
};

// -w t ln σ(x) - (1 - t) ln(1 - σ(x)) = (1 - t) x + (1 + (w - 1) t) ln(1 + e⁻ˣ)
struct BceWithLogits {
  using Attr = PositiveWeight;
  static constexpr const char* name = "bce_with_logits";
  static constexpr bool rows = false;

  template <class T>
  static T log_share(T x) {  // ln(1 + e⁻ˣ)
    return std::max(-x, T(0)) + std::log1p(kernels::vexp(-std::abs(x)));
  }
  template <class T>
  static T value(T x, T t, const PositiveWeight& a) {
    return (1 - t) * x + (1 + (static_cast<T>(a.weight) - 1) * t) * log_share(x);
  }
  template <class T>
  static Slopes<T> slopes(T x, T t, const PositiveWeight& a) {
    const T excess = static_cast<T>(a.weight) - 1;
    return {1 - t - (1 + excess * t) * kernels::vsigmoid(-x), excess * log_share(x) - x};
  }
  static Tensor in_ops(const Tensor& x, const Tensor& t, const PositiveWeight& a) {
    const Tensor flat = reshape(x, {-1});
    const Tensor log_share =
        reshape(logsumexp(stack({zeros(flat.shape(), flat.dtype()), -flat}), 0), x.shape());
    return (1 - t) * x + (1 + (a.weight - 1) * t) * log_share;
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
    return t * log(masked_fill(t, absent, 1)) - masked_fill(t * x, absent, 0);
  }
};

// The elements in runs that share a weight, each of them so many positions.
struct Runs {
  Index count, length;
  double positions;

  Runs(const Shape& x, const Shape& weights, bool rows)
      : count(weights.size()), length(x.stride(weights.rank() - 1)) {
    positions = static_cast<double>(rows ? length / x[x.rank() - 1] : length);
  }
  template <class T>
  double total(const T* weights) const {
    return positions * std::accumulate(weights, weights + count, 0.0);
  }
};

template <class Loss, class T>
double run_loss(const Runs& runs, Index run, const T* x, const T* targets,
                const typename Loss::Attr& attr) {
  double sum = 0;
  for (Index i = run * runs.length; i < (run + 1) * runs.length; ++i)
    sum += static_cast<double>(Loss::value(x[i], targets[i], attr));
  return sum;
}

template <class Loss>
Shape loss_shape(const Arguments& in) {
  const int last = in[0].rank() - 1;
  if (in[1] != in[0])
    in.fail("the targets must have the shape of x; loss functions do not broadcast");
  if (Loss::rows && last < 0) in.fail("there must be an axis of classes");
  const int free = Loss::rows ? last : last + 1;
  if (in[2].rank() > free || !std::equal(in[2].begin(), in[2].end(), in[0].begin()))
    in.fail(Loss::rows ? "the weights must have leading axes of x, at most all but the last"
                       : "the weights must have leading axes of x");
  if (in[0].size() == 0) throw ValueError(in.message("there is nothing to average"));
  return {};
}

template <class Loss>
Definition<typename Loss::Attr> pointwise(const Samples<typename Loss::Attr>& samples) {
  using Attr = typename Loss::Attr;
  return {.name = Loss::name,
          .arguments = {"x", "targets", "weights"},
          .shape = [](const Arguments& in) -> Shape { return loss_shape<Loss>(in); },
          .forward =
              []<Real T>(Ctx<T> c, const Attr& attr) {
                const Runs runs(c.shape(0), c.shape(2), Loss::rows);
                const T *x = c.in(0).data(), *targets = c.in(1).data(), *weights = c.in(2).data();
                const double total = runs.total(weights);
                if (total == 0)
                  throw ValueError(fmt::format(
                      "{}: there is nothing to average: the weights sum to 0", Loss::name));
                double sum = 0;
                for (Index r = 0; r < runs.count; ++r)
                  if (weights[r] != 0)
                    sum +=
                        static_cast<double>(weights[r]) * run_loss<Loss>(runs, r, x, targets, attr);
                c.out()[0] = static_cast<T>(sum / total);
              },
          .gradient = fused(
              []<Real T>(BackwardCtx<T> c, const Attr& attr) {
                const Runs runs(c.shape(0), c.shape(2), Loss::rows);
                const T *x = c.in(0), *targets = c.in(1), *weights = c.in(2);
                const double scale = static_cast<double>(*c.g()) / runs.total(weights);
                T *dx = c.grad(0), *dt = c.grad(1), *dw = c.grad(2);
                const auto set = [&](Index i, T factor) {
                  const Slopes<T> slopes =
                      factor == 0 ? Slopes<T>{0, 0} : Loss::slopes(x[i], targets[i], attr);
                  if (dx) dx[i] = factor * slopes.x;
                  if (dt) dt[i] = factor * slopes.target;
                };
                for (Index r = 0; (dx || dt) && r < runs.count; ++r) {
                  const T factor = static_cast<T>(scale * static_cast<double>(weights[r]));
                  for (Index i = r * runs.length; i < (r + 1) * runs.length; ++i) set(i, factor);
                }
                const double mean = static_cast<double>(*c.out());
                for (Index r = 0; dw && r < runs.count; ++r)
                  dw[r] = static_cast<T>(
                      scale * (run_loss<Loss>(runs, r, x, targets, attr) - mean * runs.positions));
              },
              [](std::span<const Tensor> in, const Attr& attr) -> Tensors {
                const Runs runs(in[0].shape(), in[2].shape(), Loss::rows);
                const Tensor losses =
                    reshape(Loss::in_ops(in[0], in[1], attr), {runs.count, runs.length});
                const Tensor weights = reshape(in[2], {runs.count, 1});
                return {sum(losses * weights) / (runs.positions * sum(weights))};
              }),
          .samples = samples};
}

const Op<> l1_op{pointwise<L1>({
    with_inputs(distinct({2, 3}), positive({2, 3}), positive({2})),
    with_inputs(positive({2, 3}), distinct({2, 3}), positive({2, 3})),
    with_inputs(values({1, -2, 3}), values({0.5, 1, 700}), positive({})),
    with_inputs(distinct({}), positive({}), positive({})),
    with_inputs(distinct({1, 1}), positive({1, 1}), positive({1})),
})};

const Op<> mse_op{pointwise<Mse>({
    with_inputs(normal({3, 4}), normal({3, 4}), positive({})),
    with_inputs(normal({2, 3, 2}), normal({2, 3, 2}), positive({2, 3})),
    with_inputs(normal({7}), normal({7}), positive({7})),
    with_inputs(normal({}), normal({}), positive({})),
    with_inputs(normal({1, 1}), normal({1, 1}), positive({1})),
})};

const Op<Threshold> huber_op{pointwise<Huber>({
    with_inputs(values({0.2, -0.3, 2, -700, 0.1}), values({0, 0, 0, 1, 0.5}), positive({5}))
        .attr(Threshold{1}),
    with_inputs(distinct({2, 3}), distinct({2, 3}), positive({2})).attr(Threshold{2}),
    with_inputs(distinct({2, 3}), positive({2, 3}), positive({2, 3})).attr(Threshold{0.1}),
    with_inputs(normal({}), normal({}), positive({})).attr(Threshold{9}),
    with_inputs(normal({1, 17}), normal({1, 17}), positive({})).attr(Threshold{9}),
})};

const Op<PositiveWeight> bce_with_logits_op{pointwise<BceWithLogits>({
    with_inputs(normal({3, 4}), normal({3, 4}), positive({3})),
    with_inputs(normal({2, 1, 3}), positive({2, 1, 3}), positive({2, 1, 3}))
        .attr(PositiveWeight{3}),
    with_inputs(values({700, -700, 0, 0.5}), values({0.2, 0.9, 1, 0}), positive({})),
    with_inputs(normal({}), normal({}), positive({})).attr(PositiveWeight{0.25}),
    with_inputs(normal({17}), normal({17}), positive({})),
})};

const Op<> kl_div_op{pointwise<KlDiv>({
    with_inputs(normal({3, 4}), positive({3, 4}), positive({3})),
    with_inputs(normal({2, 3, 2}), positive({2, 3, 2}), positive({2})),
    with_inputs(normal({5}), positive({5}), positive({})),
    with_inputs(normal({4, 1}), positive({4, 1}), positive({})),
    with_inputs(values({-700, -1, 0}), values({0.1, 0.5, 0.4}), positive({})),
})};

template <class Attr>
Tensor weighted(const Op<Attr>& op, const Tensor& x, const Tensor& targets,
                const std::optional<Tensor>& weights, const Attr& attr, Site site) {
  const Tensor w = weights ? *weights : scalar(1, x.dtype());
  return op({&x, &targets, &w}, attr, site);
}

}  // namespace

Tensor l1(const Tensor& x, const Tensor& targets, const std::optional<Tensor>& weights, Site site) {
  return weighted(l1_op, x, targets, weights, {}, site);
}

Tensor mse(const Tensor& x, const Tensor& targets, const std::optional<Tensor>& weights,
           Site site) {
  return weighted(mse_op, x, targets, weights, {}, site);
}

Tensor huber(const Tensor& x, const Tensor& targets, double delta,
             const std::optional<Tensor>& weights, Site site) {
  if (!(delta > 0))
    throw ValueError(fmt::format("huber: delta must be positive, not {} ({})", delta,
                                 SiteScope::resolve(site).str()));
  return weighted(huber_op, x, targets, weights, {delta}, site);
}

Tensor bce_with_logits(const Tensor& logits, const Tensor& targets,
                       const std::optional<Tensor>& weights, double positive_weight, Site site) {
  return weighted(bce_with_logits_op, logits, targets, weights, {positive_weight}, site);
}

Tensor kl_div(const Tensor& log_probabilities, const Tensor& targets,
              const std::optional<Tensor>& weights, Site site) {
  return weighted(kl_div_op, log_probabilities, targets, weights, {}, site);
}

}  // namespace reel
