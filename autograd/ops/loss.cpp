#include <fmt/format.h>

#include <numeric>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/check_indices.h>
#include <reel/autograd/ops/rows.h>

namespace reel {
using namespace op;
namespace {

template <class T>
T log_sum_exp(const T* x, Index n) {
  const T largest = *std::max_element(x, x + n);
  // Eight partial sums, added in a fixed order.
  std::array<T, 8> lanes{};
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t l = 0; l < 8; ++l)
      lanes[l] += kernels::vexp(x[i + static_cast<Index>(l)] - largest);
  for (std::size_t l = 0; i < n; ++i, ++l) lanes[l] += kernels::vexp(x[i] - largest);
  const T sum = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
                ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  return largest + kernels::vlog(sum);
}

void require_weight(const char* op, double weight) {
  if (weight == 0)
    throw ValueError(
        fmt::format("{}: there is nothing to average: the weights that count sum to 0", op));
}

void require_positions(const Arguments& in) {
  if (in[0].size() == 0) throw ValueError(in.message("there is nothing to average"));
}

// --- targets that are classes: nll and cross_entropy ---

struct ClassTargets {
  double smoothing = 0;
  std::int32_t ignored = 0;
  bool ignores = false;

  std::optional<std::int32_t> exempt() const {
    return ignores ? std::optional(ignored) : std::nullopt;
  }
};

// A call of nll, where x are log-probabilities, or of cross_entropy, where x - L are, with the
// logarithm L of the row's sum of exponentials. With position weights p, class weights c and
// smoothing e, a row with target y has the loss
//     l = (1 - e) c[y] (L - x[y]) + e / V Σ c (L - x),
// and the result is Σ p l / Σ p c[y].
template <class T>
struct Rows {
  const T *x, *weights, *class_weights, *log_sums;  // no log_sums for log-probabilities
  const std::int32_t* targets;
  Index rows, classes;
  ClassTargets attr;

  bool ignored(Index r) const { return attr.ignores && targets[r] == attr.ignored; }
  double weight(Index r) const { return ignored(r) ? 0 : static_cast<double>(weights[r]); }
  double class_weight(Index i) const { return static_cast<double>(class_weights[i]); }
  double total_weight() const {
    double sum = 0;
    for (Index r = 0; r < rows; ++r)
      if (!ignored(r)) sum += weight(r) * class_weight(targets[r]);
    return sum;
  }
  // L - x
  double surprise(Index r, Index i) const {
    const double log_sum = log_sums ? static_cast<double>(log_sums[r]) : 0;
    return log_sum - static_cast<double>(x[r * classes + i]);
  }
  double smooth_share() const { return attr.smoothing / static_cast<double>(classes); }
  double loss(Index r) const {
    const Index target = targets[r];
    double sum = (1 - attr.smoothing) * class_weight(target) * surprise(r, target);
    for (Index i = 0; attr.smoothing != 0 && i < classes; ++i)
      sum += smooth_share() * class_weight(i) * surprise(r, i);
    return sum;
  }
};

template <bool softmax, class T>
void class_loss(const char* name, Ctx<T> c, const ClassTargets& attr) {
  const Index rows = c.shape(1).size(), classes = c.shape(3)[0];
  const T* x = c.in(0).data();
  check_indices(name, "target", "classes", c.indices(1), classes, attr.exempt());
  Scratch<T> own(softmax && !c.recording() ? rows : 0);
  T* log_sums = !softmax ? nullptr : c.recording() ? c.out(1).data() : own.data();
  const Rows<T> call{
      x, c.in(2).data(), c.in(3).data(), log_sums, c.indices(1).data(), rows, classes, attr};
  const double total = call.total_weight();
  require_weight(name, total);
  Scratch<double> losses(rows);
  each_row(rows, [&](Index r) {
    if (softmax) log_sums[r] = log_sum_exp(x + r * classes, classes);
    losses[r] = call.weight(r) == 0 ? 0 : call.weight(r) * call.loss(r);
  });
  c.out()[0] = static_cast<T>(std::accumulate(losses.data(), losses.data() + rows, 0.0) / total);
}

template <bool softmax, class T>
void class_loss_gradient(BackwardCtx<T> c, const ClassTargets& attr) {
  const Index rows = c.shape(1).size(), classes = c.shape(3)[0];
  const T* log_sums = softmax ? c.out(1) : nullptr;
  const Rows<T> call{c.in(0), c.in(2), c.in(3), log_sums, c.indices(1), rows, classes, attr};
  const double scale = static_cast<double>(*c.g()) / call.total_weight();
  const double mean = static_cast<double>(*c.out());
  if (T* dx = c.grad(0)) {
    double class_sum = 0;
    for (Index i = 0; i < classes; ++i) class_sum += call.class_weight(i);
    each_row(rows, [&](Index r) {
      T* d = dx + r * classes;
      const double factor = scale * call.weight(r);
      if (!softmax || factor == 0) std::fill_n(d, classes, T(0));
      if (factor == 0) return;
      const double smooth = factor * call.smooth_share();
      const double hard = factor * (1 - attr.smoothing) * call.class_weight(call.targets[r]);
      if constexpr (softmax) {
        const T all = static_cast<T>(hard + smooth * class_sum), log_sum = log_sums[r];
        const T* x = call.x + r * classes;
        for (Index i = 0; i < classes; ++i) d[i] = all * kernels::vexp(x[i] - log_sum);
      }
      for (Index i = 0; attr.smoothing != 0 && i < classes; ++i)
        d[i] -= static_cast<T>(smooth * call.class_weight(i));
      d[call.targets[r]] -= static_cast<T>(hard);
    });
  }
  if (T* dw = c.grad(2))
    for (Index r = 0; r < rows; ++r)
      dw[r] =
          call.ignored(r)
              ? T(0)
              : static_cast<T>(scale * (call.loss(r) - mean * call.class_weight(call.targets[r])));
  if (T* dc = c.grad(3)) {
    Scratch<double> sums(classes);
    std::fill_n(sums.data(), classes, 0.0);
    for (Index r = 0; r < rows; ++r) {
      if (call.weight(r) == 0) continue;
      const Index target = call.targets[r];
      sums[target] += call.weight(r) * ((1 - attr.smoothing) * call.surprise(r, target) - mean);
      for (Index i = 0; attr.smoothing != 0 && i < classes; ++i)
        sums[i] += call.weight(r) * call.smooth_share() * call.surprise(r, i);
    }
    for (Index i = 0; i < classes; ++i) dc[i] = static_cast<T>(scale * sums[i]);
  }
}

// What both compute, from log-probabilities.
Tensor class_loss_in_ops(const Tensor& log_p, std::span<const Tensor> in,
                         const ClassTargets& attr) {
  Tensor targets = in[1], weights = in[2];
  const Tensor& class_weights = in[3];
  if (attr.ignores) {
    const Tensor ignored = equal(targets, scalar(attr.ignored, i32));
    targets = masked_fill(targets, ignored, 0);
    weights = masked_fill(weights, ignored, 0);
  }
  const Tensor picked = squeeze(take_along(log_p, expand(targets, -1), -1), -1);
  const Tensor hard = weights * squeeze(gather_rows(expand(class_weights, -1), targets), -1);
  const Tensor smooth = weights * sum(class_weights * log_p, -1);
  const double share = attr.smoothing / static_cast<double>(class_weights.size());
  return -((1 - attr.smoothing) * sum(hard * picked) + share * sum(smooth)) / sum(hard);
}

void check_class_targets(const Arguments& in) {
  const int last = in[0].rank() - 1;
  if (last < 0 || in[0].erase(last) != in[1])
    in.fail("the targets must have the axes of the scores but the last, which is the classes");
  if (in[2] != in[1]) in.fail("the weights must have the shape of the targets");
  if (in[3] != Shape{in[0][last]}) in.fail("there must be a class weight for each class");
  require_positions(in);
}

const Samples<ClassTargets> class_target_samples{
    with_inputs(normal({5, 4}), indices({5}, 4), positive({5}), positive({4})),
    with_inputs(normal({2, 3, 17}), indices({2, 3}, 17), positive({2, 3}), positive({17}))
        .attr(ClassTargets{.smoothing = 0.1}),
    with_inputs(normal({6, 3}), indices({6}, 3), positive({6}), positive({3}))
        .attr(ClassTargets{.smoothing = 0.3, .ignored = 1, .ignores = true}),
    with_inputs(normal({4, 2}), indices({4}, 2), positive({4}), positive({2}))
        .attr(ClassTargets{.ignored = -100, .ignores = true}),
    with_inputs(normal({3}), indices({}, 3), positive({}), positive({3})),
    with_inputs(normal({4, 1}), indices({4}, 1), positive({4}), positive({1})),
    with_inputs(normal({130, 2}), indices({130}, 2), positive({130}), positive({2})),
    with_inputs(values({700, -700, 3}), indices({}, 3), positive({}), positive({3}))
        .attr(ClassTargets{.smoothing = 0.1}),
};

const Op<ClassTargets> nll_op{{
    .name = "nll",
    .arguments = {"log_probabilities", integer("targets"), "weights", "class_weights"},
    .shape = [](const Arguments& in) -> Shape {
      check_class_targets(in);
      return {};
    },
    .forward = []<Real T>(Ctx<T> c,
                          const ClassTargets& attr) { class_loss<false>("nll", c, attr); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c,
                                 const ClassTargets& attr) { class_loss_gradient<false>(c, attr); },
                      [](std::span<const Tensor> in, const ClassTargets& attr) -> Tensors {
                        return {class_loss_in_ops(in[0], in, attr)};
                      }),
    .samples = class_target_samples,
}};

// The hidden output holds ln Σ eˣ of each row.
const Op<ClassTargets> cross_entropy_op{{
    .name = "cross_entropy",
    .arguments = {"logits", integer("targets"), "weights", "class_weights"},
    .shape = [](const Arguments& in) -> Shapes {
      check_class_targets(in);
      return {Shape{}, Shape{in[1].size()}};
    },
    .forward = []<Real T>(Ctx<T> c,
                          const ClassTargets& attr) { class_loss<true>("cross_entropy", c, attr); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c,
                                 const ClassTargets& attr) { class_loss_gradient<true>(c, attr); },
                      [](std::span<const Tensor> in, const ClassTargets& attr) -> Tensors {
                        return {class_loss_in_ops(log_softmax(in[0]), in, attr)};
                      }),
    .samples = class_target_samples,
    .hidden_outputs = 1,
}};

// --- targets that are probabilities ---

// Σ w l / Σ w with l = Σ q (L - x) over the classes; the hidden output holds L = ln Σ eˣ.
const Op<> soft_cross_entropy_op{{
    .name = "soft_cross_entropy",
    .arguments = {"logits", "targets", "weights"},
    .shape = [](const Arguments& in) -> Shapes {
      const int last = in[0].rank() - 1;
      if (last < 0 || in[1] != in[0])
        in.fail("the targets must be probabilities in the shape of the logits");
      if (in[2] != in[0].erase(last))
        in.fail("the weights must have the axes of the logits but the last");
      require_positions(in);
      return {Shape{}, in[2]};
    },
    .forward =
        []<Real T>(Ctx<T> c) {
          const Index rows = c.shape(2).size(), classes = c.shape(0).size() / rows;
          const T *logits = c.in(0).data(), *targets = c.in(1).data(), *weights = c.in(2).data();
          const double total = std::accumulate(weights, weights + rows, 0.0);
          require_weight("cross_entropy", total);
          Scratch<double> losses(rows);
          each_row(rows, [&](Index r) {
            const T *x = logits + r * classes, *q = targets + r * classes;
            const T log_sum = log_sum_exp(x, classes);
            if (c.recording()) c.out(1)[static_cast<std::size_t>(r)] = log_sum;
            double loss = 0;
            for (Index i = 0; weights[r] != 0 && i < classes; ++i)
              if (q[i] != 0)
                loss += static_cast<double>(q[i]) * static_cast<double>(log_sum - x[i]);
            losses[r] = static_cast<double>(weights[r]) * loss;
          });
          c.out()[0] =
              static_cast<T>(std::accumulate(losses.data(), losses.data() + rows, 0.0) / total);
        },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c) {
          const Index rows = c.shape(2).size(), classes = c.shape(0).size() / rows;
          const T *logits = c.in(0), *targets = c.in(1), *weights = c.in(2), *log_sums = c.out(1);
          const double total = std::accumulate(weights, weights + rows, 0.0);
          const T scale = static_cast<T>(static_cast<double>(*c.g()) / total), mean = *c.out();
          T *dx = c.grad(0), *dq = c.grad(1), *dw = c.grad(2);
          each_row(rows, [&](Index r) {
            const T *x = logits + r * classes, *q = targets + r * classes;
            const T factor = scale * weights[r], log_sum = log_sums[r];
            T mass = 0, loss = 0;
            for (Index i = 0; i < classes; ++i) {
              mass += q[i];
              if (q[i] != 0) loss += q[i] * (log_sum - x[i]);
            }
            for (Index i = 0; dx && i < classes; ++i)
              dx[r * classes + i] =
                  factor == 0 ? T(0) : factor * (mass * kernels::vexp(x[i] - log_sum) - q[i]);
            for (Index i = 0; dq && i < classes; ++i)
              dq[r * classes + i] = factor == 0 ? T(0) : factor * (log_sum - x[i]);
            if (dw) dw[r] = scale * (loss - mean);
          });
        },
        [](std::span<const Tensor> in) -> Tensors {
          return {-(sum(in[2] * sum(in[1] * log_softmax(in[0]), -1)) / sum(in[2]))};
        }),
    .samples = {with_inputs(normal({5, 4}), positive({5, 4}), positive({5})),
                with_inputs(normal({2, 3, 17}), positive({2, 3, 17}), positive({2, 3})),
                with_inputs(normal({3}), positive({3}), positive({})),
                with_inputs(normal({4, 1}), positive({4, 1}), positive({4})),
                with_inputs(normal({70, 2}), positive({70, 2}), positive({70})),
                with_inputs(values({700, -700, 3}), positive({3}), positive({}))},
    .hidden_outputs = 1,
}};

// Throws ValueError, naming the call, unless the smoothing is a share.
void check_smoothing(const char* op, const CrossEntropyOptions& options, Site site) {
  if (!(options.label_smoothing >= 0 && options.label_smoothing <= 1))
    throw ValueError(fmt::format("{}: the label smoothing must be in [0, 1], not {} ({})", op,
                                 options.label_smoothing, SiteScope::resolve(site).str()));
}

Tensor class_loss(const Op<ClassTargets>& op, const Tensor& scores, const Tensor& targets,
                  const CrossEntropyOptions& options, Site site) {
  check_smoothing(op.spec().name.data(), options, site);
  const Index classes = scores.rank() > 0 ? scores.size(-1) : 1;
  const Tensor weights =
      options.weights.defined() ? options.weights : ones(targets.shape(), scores.dtype());
  const Tensor class_weights =
      options.class_weights.defined() ? options.class_weights : ones({classes}, scores.dtype());
  return op(
      {&scores, &targets, &weights, &class_weights},
      {options.label_smoothing, options.ignore_index.value_or(0), options.ignore_index.has_value()},
      site);
}

Tensor soft_cross_entropy(const Tensor& logits, const Tensor& targets,
                          const CrossEntropyOptions& options, Site site) {
  const SiteScope scope(site);
  check_smoothing("cross_entropy", options, site);
  if (options.ignore_index)
    throw ValueError(fmt::format(
        "cross_entropy: ignore_index needs targets that are classes; where they are probabilities "
        "give a weight of 0 ({})",
        SiteScope::resolve(site).str()));
  const int last = logits.rank() - 1;
  Tensor q = targets;
  if (options.label_smoothing != 0 && last >= 0)
    q = (1 - options.label_smoothing) * q +
        options.label_smoothing / static_cast<double>(logits.size(-1));
  if (const Tensor& c = options.class_weights; c.defined()) {
    if (last < 0 || c.shape() != Shape{logits.size(-1)})
      throw ShapeError(fmt::format(
          "cross_entropy: there must be a class weight for each class; logits is {}, class_weights "
          "is {} ({})",
          logits.shape().str(), c.shape().str(), SiteScope::resolve(site).str()));
    q = q * c;
  }
  const Tensor weights = options.weights.defined()
                             ? options.weights
                             : ones(logits.shape().erase(last), logits.dtype());
  return soft_cross_entropy_op({&logits, &q, &weights}, site);
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options, Site site) {
  if (targets.defined() && is_real(targets.dtype()))
    return soft_cross_entropy(logits, targets, options, site);
  return class_loss(cross_entropy_op, logits, targets, options, site);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const std::optional<Tensor>& weights, Site site) {
  return cross_entropy(logits, targets, CrossEntropyOptions{.weights = weights.value_or(Tensor())},
                       site);
}

Tensor nll(const Tensor& log_probabilities, const Tensor& targets,
           const CrossEntropyOptions& options, Site site) {
  return class_loss(nll_op, log_probabilities, targets, options, site);
}

}  // namespace reel
