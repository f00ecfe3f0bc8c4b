#include <fmt/format.h>

#include <numeric>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/check_indices.h>
#include <reel/autograd/ops/class_loss.h>
#include <reel/autograd/ops/loss_terms.h>
#include <reel/autograd/ops/rows.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;

Index classes_of(const Shape& scores) { return scores[scores.rank() - 1]; }

// The same for the specifications.
Tensor or_ones(const Tensor& weights, const Shape& shape, DType dtype) {
  return weights.defined() ? weights : ones(shape, dtype);
}

void check_class_weights(const Arguments& in) {
  if (in.has(3) && in[3] != Shape{classes_of(in[0])})
    in.fail("there must be a class weight for each class");
}

void check_scores(const Arguments& in, LossReduction reduction) {
  if (in[0][in[0].rank() - 1] == 0) in.fail<ValueError>("there are no classes");
  if (in[0].size() == 0 && reduction == LossReduction::mean)
    in.fail<ValueError>("there is nothing to average");
}

// --- targets that are classes: nll and cross_entropy ---

template <bool softmax, class T>
void class_loss(const char* name, Ctx<T> c, const ClassTargets& attr) {
  const Index rows = c.shape(1).size(), classes = classes_of(c.shape(0));
  const T* x = c.in(0).data();
  check_indices(name, "target", "classes", c.indices(1), classes, attr.exempt());
  Scratch<T> own(softmax && !c.recording() ? 2 * rows : 0);
  const LogSums<T> sums = softmax ? log_sums(c, own, rows) : LogSums<T>{};
  const ClassRows<T> call{x,
                          {c.in(2).data()},
                          {c.in(3).data()},
                          {sums.largest, sums.rest},
                          c.indices(1).data(),
                          rows,
                          classes,
                          attr};
  const double total = divisor(name, attr.reduction, call.total_weight());
  Scratch<double> losses(rows);
  each_row(rows, [&](Index r) {
    if (softmax) sums.set(r, log_sum_exp(x + r * classes, classes));
    losses[r] = unless_zero(call.weight(r), [&] { return call.loss(r); });
  });
  c.out()[0] = static_cast<T>(std::accumulate(losses.data(), losses.data() + rows, 0.0) / total);
}

template <bool softmax, class T>
void class_loss_gradient(BackwardCtx<T> c, const ClassTargets& attr) {
  const Index rows = c.shape(1).size(), classes = classes_of(c.shape(0));
  const LogSums<const T> sums = softmax ? log_sums(c) : LogSums<const T>{};
  const ClassRows<T> call{c.in(0), {c.in(2)}, {c.in(3)}, sums, c.indices(1), rows, classes, attr};
  const bool mean = attr.reduction == LossReduction::mean;
  const double scale = static_cast<double>(*c.g()) / (mean ? call.total_weight() : 1);
  const double average = mean ? static_cast<double>(*c.out()) : 0;
  if (T* dx = c.grad(0)) {
    const double class_sum =
        kernels::sum_of<double>(classes, [&](Index i) { return call.class_weight(i); });
    each_row(rows, [&](Index r) {
      T* d = dx + r * classes;
      const Index target = call.targets[r];
      const double factor = scale * call.weight(r);
      if constexpr (softmax) {
        call.logits_gradient(r, factor, class_sum, d);
      } else {
        std::fill_n(d, classes, T(0));
        if (factor == 0) return;
        for (Index i = 0; attr.smoothing != 0 && i < classes; ++i)
          d[i] = static_cast<T>(-factor * (call.smooth_share() * call.class_weight(i)));
        d[target] -= static_cast<T>(factor * call.hard_share() * call.class_weight(target));
      }
    });
  }
  if (T* dw = c.grad(2))
    for (Index r = 0; r < rows; ++r)
      dw[r] =
          call.ignored(r)
              ? T(0)
              : static_cast<T>(scale * weight_slope(call.weight(r), call.loss(r),
                                                    average * call.class_weight(call.targets[r])));
  if (T* dc = c.grad(3)) {
    Scratch<double> sums_of_classes(classes);
    std::fill_n(sums_of_classes.data(), classes, 0.0);
    for (Index r = 0; r < rows; ++r) {
      if (call.weight(r) == 0) continue;
      const Index target = call.targets[r];
      const double hard = unless_zero(call.hard_share(), [&] { return call.surprise(r, target); });
      sums_of_classes[target] += call.weight(r) * (hard - average);
      for (Index i = 0; attr.smoothing != 0 && i < classes; ++i)
        sums_of_classes[i] += call.weight(r) * call.smooth_share() * call.surprise(r, i);
    }
    for (Index i = 0; i < classes; ++i) dc[i] = static_cast<T>(scale * sums_of_classes[i]);
  }
}

// The losses of the rows from log-probabilities.
Tensor row_losses(const Tensor& log_p, const Tensor& targets, const Tensor& class_weights,
                  const Tensor& target_weights, const ClassTargets& attr) {
  const Tensor picked = squeeze(take_along(log_p, expand(targets, -1), -1), -1);
  const double share = attr.smoothing / static_cast<double>(class_weights.size());
  Tensor losses = scalar(0, log_p.dtype());
  if (attr.smoothing != 1) losses = losses - (1 - attr.smoothing) * product(target_weights, picked);
  if (attr.smoothing != 0) losses = losses - share * sum(product(class_weights, log_p), -1);
  return losses;
}

// The specification of both; `log_p` converts the scores to log-probabilities.
template <class LogP>
Tensors class_loss_specification(std::span<const Tensor> in, const ClassTargets& attr, LogP log_p) {
  const DType dtype = in[0].dtype();
  const Tensor class_weights = or_ones(in[3], {classes_of(in[0].shape())}, dtype);
  Tensor targets = in[1], weights = or_ones(in[2], targets.shape(), dtype);
  if (attr.ignores) {
    const Tensor ignored = equal(targets, scalar(attr.ignored, i32));
    targets = masked_fill(targets, ignored, 0);
    weights = masked_fill(weights, ignored, 0);
  }
  const Tensor target_weights = squeeze(gather_rows(expand(class_weights, -1), targets), -1);
  const auto losses_of = [&](const Tensor& scores) {
    return row_losses(log_p(scores), targets, class_weights, target_weights, attr);
  };
  const Tensor skip = skipped(weights, losses_of(in[0].detach()));
  weights = masked_fill(weights, skip, 0);
  const Tensor total = sum(weights * losses_of(masked_fill(in[0], expand(skip, -1), 0)));
  const bool is_sum = attr.reduction == LossReduction::sum;
  return {is_sum ? total : total / sum(weights * target_weights)};
}

void check_class_targets(const Arguments& in, const ClassTargets& attr) {
  const int last = in[0].rank() - 1;
  if (last < 0 || in[0].erase(last) != in[1])
    in.fail("the targets must have the axes of the scores but the last, which is the classes");
  if (in.has(2) && in[2] != in[1]) in.fail("the weights must have the shape of the targets");
  check_class_weights(in);
  check_scores(in, attr.reduction);
}

REEL_EARLY const Samples<ClassTargets> class_target_samples{
    with_inputs(normal({5, 4}), indices({5}, 4), positive({5}), positive({4})),
    with_inputs(normal({2, 3, 17}), indices({2, 3}, 17), positive({2, 3}), positive({17}))
        .attr(ClassTargets{.smoothing = 0.1}),
    with_inputs(normal({6, 3}), indices({6}, 3), positive({6}), absent())
        .attr(ClassTargets{.smoothing = 0.3, .ignored = 1, .ignores = true}),
    with_inputs(normal({4, 2}), indices({4}, 2), absent(), absent())
        .attr(ClassTargets{.ignored = -100, .ignores = true}),
    with_inputs(normal({3}), indices({}, 3), positive({}), positive({3})),
    with_inputs(normal({3}), indices({}, 3), absent(), positive({3})),
    with_inputs(normal({4, 1}), indices({4}, 1), positive({4}), positive({1})),
    with_inputs(normal({130, 2}), indices({130}, 2), absent(), absent()),
    with_inputs(values({700, -700, 3}), indices({}, 3), positive({}), positive({3}))
        .attr(ClassTargets{.smoothing = 0.1}),
    with_inputs(normal({5, 4}), indices({5}, 4), absent(), positive({4}))
        .attr(ClassTargets{.smoothing = 0.2, .reduction = LossReduction::sum}),
    with_inputs(normal({3, 4}), indices({3}, 4), positive({3}), positive({4}))
        .attr(ClassTargets{.smoothing = 1}),
    with_inputs(normal({3, 4}), indices({3}, 4), absent(), absent())
        .attr(ClassTargets{.smoothing = 0.5}),
};

REEL_EARLY const Op<ClassTargets> nll_op{{
    .name = "nll",
    .arguments = {"log_probabilities", integer("targets"), optional("weights"),
                  optional("class_weights")},
    .shape = [](const Arguments& in, const ClassTargets& attr) -> Shape {
      check_class_targets(in, attr);
      return {};
    },
    .forward = []<Real T>(Ctx<T> c,
                          const ClassTargets& attr) { class_loss<false>("nll", c, attr); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c,
                                 const ClassTargets& attr) { class_loss_gradient<false>(c, attr); },
                      [](std::span<const Tensor> in, const ClassTargets& attr) -> Tensors {
                        return class_loss_specification(in, attr,
                                                        [](const Tensor& x) { return x; });
                      }),
    .samples = class_target_samples,
}};

// The hidden outputs hold the two parts of each row's ln Σ eˣ.
REEL_EARLY const Op<ClassTargets> cross_entropy_op{{
    .name = "cross_entropy",
    .arguments = {"logits", integer("targets"), optional("weights"), optional("class_weights")},
    .shape = [](const Arguments& in, const ClassTargets& attr) -> Shapes {
      check_class_targets(in, attr);
      const Shape rows{in[1].size()};
      return {Shape{}, rows, rows};
    },
    .forward = []<Real T>(Ctx<T> c,
                          const ClassTargets& attr) { class_loss<true>("cross_entropy", c, attr); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c,
                                 const ClassTargets& attr) { class_loss_gradient<true>(c, attr); },
                      [](std::span<const Tensor> in, const ClassTargets& attr) -> Tensors {
                        return class_loss_specification(
                            in, attr, [](const Tensor& x) { return log_softmax(x); });
                      }),
    .samples = class_target_samples,
    .hidden_outputs = 2,
}};

// --- targets that are probabilities ---

struct SoftTargets {
  double smoothing = 0;
  LossReduction reduction = LossReduction::mean;
};

// With k = c ((1 - e) q + e / V), a row has the loss l = Σ k (-ℓ), and the result is Σ p l, divided
// by Σ p for a mean. The hidden outputs are those of cross_entropy.
template <class T>
struct SoftRows {
  Index classes;
  const T *logits, *targets;
  Weights<T> weights, class_weights;
  SoftTargets attr;

  double weight(Index r) const { return weights[r]; }
  double hard_share() const { return 1 - attr.smoothing; }
  double share(Index r, Index i) const {
    return hard_share() * static_cast<double>(targets[r * classes + i]) +
           attr.smoothing / static_cast<double>(classes);
  }
  double factor(Index r, Index i) const { return class_weights[i] * share(r, i); }
  double total_weight(Index rows) const { return weights.sum(rows); }
  // -ℓ
  double surprise(Index r, Index i, const LogSum<double>& sum) const {
    return -sum.log_share(static_cast<double>(logits[r * classes + i]));
  }
  double loss(Index r, const LogSum<double>& sum) const {
    double loss = 0;
    for (Index i = 0; i < classes; ++i)
      loss += unless_zero(factor(r, i), [&] { return surprise(r, i, sum); });
    return loss;
  }
};

template <class T>
LogSum<double> in_double(const LogSum<T>& sum) {
  return {static_cast<double>(sum.largest), static_cast<double>(sum.rest)};
}

template <class T>
void soft_loss(Ctx<T> c, const SoftTargets& attr) {
  const Index classes = classes_of(c.shape(0)), rows = c.shape(0).size() / classes;
  const SoftRows<T> call{classes,          c.in(0).data(),   c.in(1).data(),
                         {c.in(2).data()}, {c.in(3).data()}, attr};
  Scratch<T> own(c.recording() ? 0 : 2 * rows);
  const LogSums<T> sums = log_sums(c, own, rows);
  const double total = divisor("cross_entropy", attr.reduction, call.total_weight(rows));
  Scratch<double> losses(rows);
  each_row(rows, [&](Index r) {
    const LogSum<T> sum = log_sum_exp(call.logits + r * classes, classes);
    sums.set(r, sum);
    losses[r] = unless_zero(call.weight(r), [&] { return call.loss(r, in_double(sum)); });
  });
  c.out()[0] = static_cast<T>(std::accumulate(losses.data(), losses.data() + rows, 0.0) / total);
}

template <class T>
void soft_loss_gradient(BackwardCtx<T> c, const SoftTargets& attr) {
  const Index classes = classes_of(c.shape(0)), rows = c.shape(0).size() / classes;
  const SoftRows<T> call{classes, c.in(0), c.in(1), {c.in(2)}, {c.in(3)}, attr};
  const LogSums<const T> sums = log_sums(c);
  const bool mean = attr.reduction == LossReduction::mean;
  const double scale = static_cast<double>(*c.g()) / (mean ? call.total_weight(rows) : 1);
  const double average = mean ? static_cast<double>(*c.out()) : 0;
  T *dx = c.grad(0), *dq = c.grad(1), *dw = c.grad(2), *dc = c.grad(3);
  each_row(rows, [&](Index r) {
    const Index begin = r * classes;
    const double factor = scale * call.weight(r);
    const LogSum<double> sum = in_double(sums[r]);
    if (dx && factor == 0) std::fill_n(dx + begin, classes, T(0));
    if (dx && factor != 0) {
      with_function_of(call.class_weights, [&](auto weight) {
        const auto k = [=](Index i) { return weight(i) * call.share(r, i); };
        shares_minus(call.logits + begin, classes, sums[r], factor,
                     kernels::sum_of<double>(classes, k), k, 0, 0.0, dx + begin);
      });
    }
    for (Index i = 0; dq && i < classes; ++i)
      dq[begin + i] = static_cast<T>(unless_zero(factor * call.hard_share() * call.class_weights[i],
                                                 [&] { return call.surprise(r, i, sum); }));
    if (dw)
      dw[r] = static_cast<T>(scale * weight_slope(call.weight(r), call.loss(r, sum), average));
  });
  if (!dc) return;
  Scratch<double> sums_of_classes(classes);
  std::fill_n(sums_of_classes.data(), classes, 0.0);
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; call.weight(r) != 0 && i < classes; ++i)
      sums_of_classes[i] += unless_zero(call.weight(r) * call.share(r, i),
                                        [&] { return call.surprise(r, i, in_double(sums[r])); });
  for (Index i = 0; i < classes; ++i) dc[i] = static_cast<T>(scale * sums_of_classes[i]);
}

Tensors soft_specification(std::span<const Tensor> in, const SoftTargets& attr) {
  const Index classes = classes_of(in[0].shape());
  const Tensor class_weights = or_ones(in[3], {classes}, in[0].dtype());
  const Tensor given = or_ones(in[2], in[0].shape().erase(in[0].rank() - 1), in[0].dtype());
  const double smooth = attr.smoothing / static_cast<double>(classes);
  const auto losses_of = [&](const Tensor& logits, const Tensor& targets) {
    const Tensor shares = class_weights * ((1 - attr.smoothing) * targets + smooth);
    return -sum(product(shares, log_softmax(logits)), -1);
  };
  const Tensor skip = skipped(given, losses_of(in[0].detach(), in[1].detach()));
  const Tensor weights = masked_fill(given, skip, 0), elements = expand(skip, -1);
  const Tensor total =
      sum(weights * losses_of(masked_fill(in[0], elements, 0), masked_fill(in[1], elements, 0)));
  return {attr.reduction == LossReduction::sum ? total : total / sum(weights)};
}

REEL_EARLY const Op<SoftTargets> soft_cross_entropy_op{{
    .name = "soft_cross_entropy",
    .arguments = {"logits", "targets", optional("weights"), optional("class_weights")},
    .shape = [](const Arguments& in, const SoftTargets& attr) -> Shapes {
      const int last = in[0].rank() - 1;
      if (last < 0 || in[1] != in[0])
        in.fail(
            "targets that are classes are i32 in the shape of the logits without the last axis, "
            "and "
            "targets that are probabilities have the shape of the logits");
      const Shape positions = in[0].erase(last), rows{positions.size()};
      if (in.has(2) && in[2] != positions)
        in.fail("the weights must have the axes of the logits but the last");
      check_class_weights(in);
      check_scores(in, attr.reduction);
      return {Shape{}, rows, rows};
    },
    .forward = []<Real T>(Ctx<T> c, const SoftTargets& attr) { soft_loss(c, attr); },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c, const SoftTargets& attr) { soft_loss_gradient(c, attr); },
        [](std::span<const Tensor> in, const SoftTargets& attr) -> Tensors {
          return soft_specification(in, attr);
        }),
    .samples = {with_inputs(normal({5, 4}), positive({5, 4}), positive({5}), positive({4})),
                with_inputs(normal({2, 3, 17}), positive({2, 3, 17}), positive({2, 3}),
                            positive({17}))
                    .attr(SoftTargets{.smoothing = 0.1}),
                with_inputs(normal({3}), positive({3}), positive({}), positive({3}))
                    .attr(SoftTargets{.smoothing = 0.2, .reduction = LossReduction::sum}),
                with_inputs(normal({4, 1}), positive({4, 1}), positive({4}), positive({1})),
                with_inputs(normal({5, 2}), positive({5, 2}), absent(), positive({2})),
                with_inputs(normal({2, 3, 2}), positive({2, 3, 2}), positive({2, 3}), absent())
                    .attr(SoftTargets{.smoothing = 0.1}),
                with_inputs(normal({70, 2}), positive({70, 2}), absent(), absent()),
                with_inputs(values({70, -70, 3}), positive({3}), positive({}), positive({3}))},
    .function = "cross_entropy",
    .hidden_outputs = 2,
}};

Tensor class_loss(const Op<ClassTargets>& op, const Tensor& scores, const Tensor& targets,
                  const CrossEntropyOptions& options, Site site) {
  check_smoothing(op.spec().name.data(), options.label_smoothing, site);
  return op({&scores, &targets, &options.weights, &options.class_weights},
            {options.label_smoothing, options.ignore_index.value_or(0),
             options.ignore_index.has_value(), options.reduction},
            site);
}

Tensor soft_cross_entropy(const Tensor& logits, const Tensor& targets,
                          const CrossEntropyOptions& options, Site site) {
  check_smoothing("cross_entropy", options.label_smoothing, site);
  if (options.ignore_index)
    throw ValueError(
        "cross_entropy: ignore_index needs targets that are classes; where they are probabilities "
        "give a weight of 0",
        site);
  return soft_cross_entropy_op({&logits, &targets, &options.weights, &options.class_weights},
                               {options.label_smoothing, options.reduction}, site);
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options, Site site) {
  if (targets.defined() && is_real(targets.dtype()))
    return soft_cross_entropy(logits, targets, options, site);
  return class_loss(cross_entropy_op, logits, targets, options, site);
}

Tensor nll(const Tensor& log_probabilities, const Tensor& targets,
           const CrossEntropyOptions& options, Site site) {
  return class_loss(nll_op, log_probabilities, targets, options, site);
}

}  // namespace reel

namespace reel::op::linked {
void loss() {}
}  // namespace reel::op::linked
