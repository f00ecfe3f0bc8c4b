#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/check_indices.h>
#include <reel/autograd/ops/class_loss.h>
#include <reel/autograd/ops/rows.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;
using kernels::MatrixView;
using kernels::PackedMatrix;
using kernels::Write;

enum Input { x_input, w_input, b_input, targets_input, weights_input };
enum Output { loss_output, dx_output, dw_output, db_output, losses_output };

// The rows whose logits exist at a time: about 16 MB of f32, but enough that the products, which go
// over all weights, are worth it.
Index chunk_rows(Index classes) {
  return std::clamp<Index>((Index{1} << 22) / std::max<Index>(classes, 1), 128, 1024);
}

// One call. The gradient is made in the forward pass, while the logits of a chunk are there: that
// of the loss itself, which a backward pass has only to multiply by the one that arrives.
template <class T>
class Call {
 public:
  Call(Ctx<T> c, const ClassTargets& attr)
      : c_(c),
        attr_(attr),
        rows_(c.shape(targets_input).size()),
        classes_(c.shape(w_input)[0]),
        features_(c.shape(w_input)[1]),
        w_(MatrixView<T>::row_major(c.in(w_input).data(), classes_, features_)),
        forward_(w_.transposed()),
        losses_(rows_),
        bias_sums_(c.recording() ? classes_ : 0) {
    divisor_ = divisor("linear_cross_entropy", attr.reduction,
                       rows_from(0, rows_, nullptr, {}).total_weight());
    if (!c.recording()) return;
    backward_.emplace(w_);
    std::fill_n(bias_sums_.data(), classes_, 0.0);
    std::ranges::fill(c.out(dw_output), T(0));
  }

  void run() {
    const Index most = std::min(rows_, chunk_rows(classes_));
    const Scratch<T> logits(most * classes_);
    for (Index begin = 0; begin < rows_; begin += most)
      chunk(begin, std::min(rows_, begin + most), logits.data());
    const double sum = std::accumulate(losses_.data(), losses_.data() + rows_, 0.0);
    c_.out(loss_output)[0] = static_cast<T>(sum / divisor_);
    if (!c_.recording()) return;
    for (Index i = 0; c_.has(b_input) && i < classes_; ++i)
      c_.out(db_output)[static_cast<std::size_t>(i)] = static_cast<T>(bias_sums_[i]);
  }

 private:
  ClassRows<T> rows_from(Index begin, Index end, const T* logits, LogSums<const T> sums) const {
    const T* weights = c_.in(weights_input).data();
    return {logits,
            {weights ? weights + begin : nullptr},
            {nullptr},
            sums,
            c_.indices(targets_input).data() + begin,
            end - begin,
            classes_,
            attr_};
  }

  void chunk(Index begin, Index end, T* logits) {
    const Index n = end - begin;
    const auto x =
        MatrixView<T>::row_major(c_.in(x_input).data(), rows_, features_).row_range(begin, end);
    kernels::matmul(x, forward_, c_.in(b_input).data(), 0, logits, classes_);
    const Scratch<T> sums(2 * n);
    const ClassRows<T> call = rows_from(begin, end, logits, {sums.data(), sums.data() + n});
    const LogSums<T> log_sums{sums.data(), sums.data() + n};
    each_row(n, [&](Index r) {
      T* row = logits + r * classes_;
      log_sums.set(r, log_sum_exp(row, classes_));
      const double weight = call.weight(r);
      const double loss = unless_zero(weight, [&] { return call.loss(r); });
      losses_[begin + r] = loss;
      if (!c_.recording()) return;
      if (c_.has(weights_input))
        c_.out(losses_output)[static_cast<std::size_t>(begin + r)] =
            static_cast<T>(call.ignored(r) ? 0 : call.loss(r));
      const Scratch<T> d(classes_);  // in place, the compiler could not use vectors
      call.logits_gradient(r, weight / divisor_, static_cast<double>(classes_), d.data());
      std::copy_n(d.data(), classes_, row);
    });
    if (c_.recording()) add_gradients(x, MatrixView<T>::row_major(logits, n, classes_), begin);
  }

  // Of a chunk with the gradient d of its logits.
  void add_gradients(const MatrixView<T>& x, const MatrixView<T>& d, Index begin) {
    kernels::matmul(d, *backward_, c_.out(dx_output).data() + begin * features_, features_,
                    Write::assign);
    kernels::matmul(d.transposed(), x, c_.out(dw_output).data(), features_, Write::add);
    if (!c_.has(b_input)) return;
    constexpr Index block = 1024;
    kernels::parallel_for((classes_ + block - 1) / block, [&](Index k) {
      const Index end = std::min(classes_, (k + 1) * block);
      for (Index r = 0; r < d.rows; ++r)
        for (Index i = k * block; i < end; ++i)
          bias_sums_[i] += static_cast<double>(d.data[r * classes_ + i]);
    });
  }

  Ctx<T> c_;
  ClassTargets attr_;
  Index rows_, classes_, features_;
  MatrixView<T> w_;
  PackedMatrix<T> forward_;
  std::optional<PackedMatrix<T>> backward_;
  Scratch<double> losses_, bias_sums_;
  double divisor_ = 1;
};

template <class T>
void backward(BackwardCtx<T> c, const ClassTargets& attr) {
  const T g = *c.g();
  const auto scale = [&](Input input, Output output) {
    T* to = c.grad(input);
    if (!to) return;
    const T* from = c.out(output);
    constexpr Index block = 1 << 15;
    const Index size = c.shape(input).size();
    kernels::parallel_for((size + block - 1) / block, [&](Index k) {
      const Index begin = k * block, end = std::min(size, begin + block);
      std::transform(from + begin, from + end, to + begin, [=](T x) { return g * x; });
    });
  };
  scale(x_input, dx_output);
  scale(w_input, dw_output);
  scale(b_input, db_output);
  T* dp = c.grad(weights_input);
  if (!dp) return;
  const Index rows = c.shape(targets_input).size();
  const ClassRows<T> call{nullptr, {c.in(weights_input)}, {nullptr}, {}, c.indices(targets_input),
                          rows,    c.shape(w_input)[0],   attr};
  const bool mean = attr.reduction == LossReduction::mean;
  const double factor = static_cast<double>(g) / (mean ? call.total_weight() : 1);
  const double average = mean ? static_cast<double>(*c.out(loss_output)) : 0;
  for (Index r = 0; r < rows; ++r)
    dp[r] = call.ignored(r)
                ? T(0)
                : static_cast<T>(factor * weight_slope(call.weight(r),
                                                       static_cast<double>(c.out(losses_output)[r]),
                                                       average));
}

void check(const Arguments& in, const ClassTargets& attr) {
  const Shape &x = in[x_input], &w = in[w_input];
  const int last = x.rank() - 1;
  if (last < 0 || w.rank() != 2) in.fail("x must have an axis of features, and w be a matrix");
  if (x[last] != w[1]) in.fail(fmt::format("x has {} features, but w takes {}", x[last], w[1]));
  if (in.has(b_input) && in[b_input] != Shape{w[0]})
    in.fail(fmt::format("w has {} classes, but b is {}", w[0], in[b_input].str()));
  if (x.erase(last) != in[targets_input])
    in.fail("the targets must have the axes of x but the last, which is the features");
  if (in.has(weights_input) && in[weights_input] != in[targets_input])
    in.fail("the weights must have the shape of the targets");
  if (w[0] == 0) in.fail<ValueError>("there are no classes");
  if (in[targets_input].size() == 0 && attr.reduction == LossReduction::mean)
    in.fail<ValueError>("there is nothing to average");
}

// The hidden outputs hold the gradients, and the losses of the rows, if there are weights.
REEL_EARLY const Op<ClassTargets> linear_cross_entropy_op{{
    .name = "linear_cross_entropy",
    .arguments = {"x", "w", optional("b"), integer("targets"), optional("weights")},
    .shape = [](const Arguments& in, const ClassTargets& attr) -> Shapes {
      check(in, attr);
      const Index losses = in.has(weights_input) ? in[weights_input].size() : 0;
      return {Shape{}, in[x_input], in[w_input], Shape{in.has(b_input) ? in[w_input][0] : 0},
              Shape{losses}};
    },
    .forward =
        []<Real T>(Ctx<T> c, const ClassTargets& attr) {
          check_indices("linear_cross_entropy", "target", "classes", c.indices(targets_input),
                        c.shape(w_input)[0], attr.exempt());
          Call<T>(c, attr).run();
        },
    .gradient = fused([]<Real T>(BackwardCtx<T> c, const ClassTargets& attr) { backward(c, attr); },
                      [](std::span<const Tensor> in, const ClassTargets& attr) -> Tensors {
                        const Tensor &x = in[x_input], &w = in[w_input], &b = in[b_input];
                        const Tensor rows = x.rank() > 1 ? x : expand(x, 0);
                        const Tensor products = matmul(rows, w, false, true);
                        const Tensor logits = b.defined() ? products + b : products;
                        return {cross_entropy(x.rank() > 1 ? logits : squeeze(logits, 0),
                                              in[targets_input],
                                              {.weights = in[weights_input],
                                               .label_smoothing = attr.smoothing,
                                               .ignore_index = attr.exempt(),
                                               .reduction = attr.reduction})};
                      }),
    .samples =
        {with_inputs(normal({5, 3}), normal({4, 3}), normal({4}), indices({5}, 4), positive({5})),
         with_inputs(normal({2, 3, 5}), normal({17, 5}), absent(), indices({2, 3}, 17), absent()),
         with_inputs(normal({6, 2}), normal({3, 2}), normal({3}), indices({6}, 3), positive({6}))
             .attr(ClassTargets{.smoothing = 0.3, .ignored = 1, .ignores = true}),
         with_inputs(normal({300, 3}), normal({2, 3}), normal({2}), indices({300}, 2), absent()),
         with_inputs(normal({3}), normal({4, 3}), normal({4}), indices({}, 4), absent())
             .attr(ClassTargets{.reduction = LossReduction::sum}),
         with_inputs(normal({2, 0}), normal({3, 0}), normal({3}), indices({2}, 3), positive({2})),
         with_inputs(normal({2, 2}), normal({1, 2}), absent(), indices({2}, 1), absent())},
    .hidden_outputs = 4,
}};

}  // namespace

Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& b,
                            const Tensor& targets, const LinearCrossEntropyOptions& options,
                            Site site) {
  check_smoothing("linear_cross_entropy", options.label_smoothing, site);
  return linear_cross_entropy_op({&x, &w, &b, &targets, &options.weights},
                                 {options.label_smoothing, options.ignore_index.value_or(0),
                                  options.ignore_index.has_value(), options.reduction},
                                 site);
}

}  // namespace reel
