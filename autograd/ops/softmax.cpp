#include <algorithm>

#include <reel/autograd/ops/lines.h>
#include <reel/autograd/ops/log_sum.h>
#include <reel/autograd/ops/reduction.h>

namespace reel {
using namespace op;
namespace {

using detail::from_largest;
using detail::Line;
using detail::LogSum;
using detail::Powers;
using detail::Reduction;

// Calls f(x, y, stride, size) for each line along the axis.
template <class T, class F>
void map_lines(Ctx<T> c, int axis, F f) {
  const Index size = c.shape(0)[axis], stride = c.shape(0).stride(axis);
  if (size == 0) return;
  detail::each_line(c.shape(0), axis, [&](Index first, Index) {
    f(c.in(0).data() + first, c.out().data() + first, stride, size);
  });
}

REEL_EARLY const Op<Along> softmax_op{{
    .name = "softmax",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Along& along) {
          map_lines(c, along.axis, [](const T* x, T* y, Index stride, Index size) {
            const Line<T> line{x, stride, size};
            const Powers<T> powers(line);
            const T largest = powers.largest, sum = powers.sum();
            line.map(y, [=](T x) { return kernels::vexp(from_largest(x, largest)) / sum; });
          });
        },
    .gradient = rule(
        [](Vjp& v, const Along& along) {
          v.add(0, [&] {
            const Tensor weighted = v.g() * v.out();
            return weighted - v.out() * sum(weighted, along.axis, true);
          });
        },
        keeps_output),
    .samples =
        {with_inputs(normal({3, 4})).attr(Along{1}), with_inputs(normal({2, 3, 4})).attr(Along{1}),
         with_inputs(normal({17})).attr(Along{0}), with_inputs(normal({3, 1})).attr(Along{1}),
         with_inputs(normal({0, 3})).attr(Along{1}), with_inputs(normal({3, 0})).attr(Along{1}),
         with_inputs(values({700, 690, -700})).attr(Along{0})},
}};

REEL_EARLY const Op<Along> log_softmax_op{{
    .name = "log_softmax",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Along& along) {
          map_lines(c, along.axis, [](const T* x, T* y, Index stride, Index size) {
            const Line<T> line{x, stride, size};
            const LogSum<T> sum = Powers<T>(line).log();
            line.map(y, [=](T x) { return sum.log_share(x); });
          });
        },
    .gradient = rule(
        [](Vjp& v, const Along& along) {
          v.add(0, [&] { return v.g() - exp(v.out()) * sum(v.g(), along.axis, true); });
        },
        keeps_output),
    .samples = {with_inputs(normal({3, 4})).attr(Along{1}),
                with_inputs(normal({2, 3, 4})).attr(Along{0}),
                with_inputs(normal({17})).attr(Along{0}),
                with_inputs(normal({3, 1})).attr(Along{1}),
                with_inputs(normal({0, 3})).attr(Along{1}),
                with_inputs(values({700, 690, -700})).attr(Along{0})},
}};

// --- logsumexp ---

// Hidden outputs hold the two parts of a LogSum; if all terms are e^-∞, largest = 0 and rest = -∞.
template <class T>
void log_sum_of_groups(Ctx<T> c, const Reduction& r) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const auto n = static_cast<Index>(c.out().size());
  const Scratch<T> own_largest(c.recording() ? 0 : n), own_rest(c.recording() ? 0 : n);
  T* const largest = c.recording() ? c.out(1).data() : own_largest.data();
  T* const rest = c.recording() ? c.out(2).data() : own_rest.data();
  T* y = c.out().data();
  detail::fold(c, r, c.out(), -infinity, [](T y, T x) { return x > y || x != x ? x : y; });
  for (Index j = 0; j < n; ++j) largest[j] = y[j] == -infinity ? T(0) : y[j];
  detail::fold_sum(c, r, [&](T x, Index j) { return kernels::vexp(from_largest(x, largest[j])); });
  for (Index j = 0; j < n; ++j) y[j] = largest[j] + (rest[j] = kernels::vlog(y[j]));
}

// g e^(x - largest - rest), and 0 if all terms are e^-∞.
template <class T>
void log_sum_gradient(BackwardCtx<T> c, const Reduction& r) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const Shape small = detail::reduced(c.shape(0), r);
  const kernels::BroadcastPlan<1> plan(c.shape(0), {&small});
  const T* x = c.in(0);
  T* to = c.grad(0);
  plan.each_row([&](const auto& offset, Index n, const auto& stride) {
    kernels::with_runs(
        [&](auto g, auto largest, auto rest) {
          for (Index i = 0; i < n; ++i) {
            const T share = kernels::vexp(from_largest(x[i], largest[i]) - rest[i]);
            to[i] = rest[i] == -infinity ? T(0) : g[i] * share;
          }
        },
        c.g() + offset[0], stride[0], c.out(1) + offset[0], stride[0], c.out(2) + offset[0],
        stride[0]);
    x += n;
    to += n;
  });
}

Tensor log_sum_in_ops(const Tensor& x, const Reduction& r) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto at = [&](const Tensor& x, double value) {
    return equal(x.detach(), scalar(value, x.dtype()));
  };
  Tensor largest = x.detach();
  for (int axis = 0; axis < x.rank(); ++axis)
    if (r.axes >> axis & 1) largest = max(largest, axis, true);
  largest = masked_fill(largest, at(largest, -infinity), 0);
  const Tensor distance = masked_fill(x - largest, at(x, infinity), 0);
  const Tensor powers = sum_to(exp(distance), detail::reduced(x.shape(), r));
  const Tensor none = at(powers, 0);
  const Tensor rest = masked_fill(log(masked_fill(powers, none, 1)), none, -infinity);
  return reshape(largest + rest, detail::result_shape(x.shape(), r));
}

REEL_EARLY const Op<Reduction> logsumexp_op{{
    .name = "logsumexp",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Reduction& r) -> Shapes {
      const Shape result = detail::nonempty_reduction(in, r);
      return {result, result, result};
    },
    .forward = []<Real T>(Ctx<T> c, const Reduction& r) { log_sum_of_groups(c, r); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c, const Reduction& r) { log_sum_gradient(c, r); },
                      [](std::span<const Tensor> in, const Reduction& r) -> Tensors {
                        return {log_sum_in_ops(in[0], r)};
                      },
                      Keeps{1, 0b110}),
    .samples = {with_inputs(normal({3, 4})).attr(Reduction{3, false}),
                with_inputs(normal({3, 4})).attr(Reduction{2, true}),
                with_inputs(normal({2, 3, 17})).attr(Reduction{5, false}),
                with_inputs(normal({0, 4})).attr(Reduction{2, false}),
                with_inputs(values({700, 710, -700})).attr(Reduction{1, false})},
    .hidden_outputs = 2,
}};

}  // namespace

Tensor logsumexp(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return logsumexp_op({&x}, detail::reduction(x, axes, keepdims, "logsumexp", site), site);
}

Tensor softmax(const Tensor& x, Arg<int> axis, Site site) {
  return softmax_op({&x}, {normalized_axis(axis, x.rank(), "softmax", site)}, site);
}

Tensor log_softmax(const Tensor& x, Arg<int> axis, Site site) {
  return log_softmax_op({&x}, {normalized_axis(axis, x.rank(), "log_softmax", site)}, site);
}

}  // namespace reel
