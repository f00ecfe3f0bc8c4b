#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops/axis.h>
#include <reel/autograd/ops/log_sum.h>
#include <reel/autograd/ops/reduction.h>
#include <reel/autograd/ops/rows.h>

namespace reel {
using namespace op;
namespace {

using detail::from_largest;
using detail::Line;
using detail::LogSum;
using detail::Powers;
using detail::Reduction;

// --- the Jacobian of log_softmax ---

// With p = w / Σ w and J = I - 1 pᵀ, the Jacobian of log_softmax where it is ln p: the lines of v
// times J, v - Σ p v, or times Jᵀ, v - p Σ v. The Jacobian of softmax is diag(p) J. If the largest
// p is nearly 1, its element of the result is a small difference; so the elements of the largest w
// are kept apart from the others, by whose shares alone they differ.
struct Jacobian {
  std::int64_t axis;
  bool transposed;
};

Tensor times_jacobian(const Tensor& v, const Tensor& w, std::int64_t axis, bool transposed);

// Below this the largest share, of one or several equal elements, is not nearly all of the sum.
constexpr double small_share = 0.25;

// One contiguous line.
struct Row {
  static constexpr std::size_t most = 1;
  Index n;

  Index lines() const { return 1; }
  // Calls f(i, line) for each element.
  template <class F>
  void each(F f) const {
    for (Index i = 0; i < n; ++i) f(i, 0);
  }
  // totals[line] = Σ term(i, line)
  template <class T, class F>
  void sum(F term, double* totals) const {
    *totals = kernels::sum_of<T>(n, [=](Index i) { return term(i, 0); });
  }
};

// Lines side by side, whose elements are `stride` apart.
struct Columns {
  static constexpr std::size_t most = 64;
  Index n, columns, stride;

  Index lines() const { return columns; }
  template <class F>
  void each(F f) const {
    for (Index r = 0; r < n; ++r)
      for (Index c = 0; c < columns; ++c) f(r * stride + c, c);
  }
  template <class T, class F>
  void sum(F term, double* totals) const {
    kernels::add_columns<T>(
        n, columns, [term, step = stride](Index r, Index c) { return term(r * step + c, c); },
        totals);
  }
};

template <class T, class Lines>
using PerLine = std::array<T, Lines::most>;

// The largest w >= 0 of each line, and whether any of them is nearly all of its sum.
template <class T, class Lines>
bool find_largest(const T* w, const Lines& lines, PerLine<T, Lines>& top) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;  // in the same order
  PerLine<Bits, Lines> largest;
  std::fill_n(largest.data(), lines.lines(), 0);
  lines.each([&, most = largest.data()](Index i, Index l) {
    most[l] = std::max(most[l], std::bit_cast<Bits>(w[i]));
  });
  bool any = false;
  for (std::size_t l = 0; l < static_cast<std::size_t>(lines.lines()); ++l) {
    top[l] = std::bit_cast<T>(largest[l]);
    any |= top[l] > T(small_share);
  }
  return any;
}

// Σ w (v[i] - v) / Σ w, with differences from the v of a largest w.
template <class T, class Lines>
void times_jacobian_itself(const T* v, const T* w, T* y, Lines lines) {
  PerLine<T, Lines> top, origins, means;
  std::fill_n(origins.data(), lines.lines(), T(0));
  T *const origin = origins.data(), *const mean = means.data();
  if (find_largest(w, lines, top))
    lines.each([=, largest = top.data()](Index i, Index l) {
      const bool taken = w[i] == largest[l] && largest[l] > T(small_share) && std::isfinite(v[i]);
      origin[l] = taken ? v[i] : origin[l];
    });
  PerLine<double, Lines> totals, weighted;
  lines.template sum<T>([=](Index i, Index) { return w[i]; }, totals.data());
  lines.template sum<T>([=](Index i, Index l) { return w[i] * (v[i] - origin[l]); },
                        weighted.data());
  for (std::size_t l = 0; l < static_cast<std::size_t>(lines.lines()); ++l)
    mean[l] = static_cast<T>(weighted[l] / totals[l]);
  lines.each([=](Index i, Index l) { y[i] = (v[i] - origin[l]) - mean[l]; });
}

// The elements of y = v - w Σ v / Σ w whose w is the largest: (w (hits v - Σ of their v) + v Σ
// other w - w Σ other v) / Σ w.
template <class T, class Lines>
void correct_largest(const T* v, const T* w, T* y, const Lines& lines, const T* top) {
  PerLine<double, Lines> hits, hit_sum, others, other_sum;
  const auto sum_where = [&](bool hit, auto term, double* totals) {
    lines.template sum<T>(
        [=](Index i, Index l) { return (w[i] == top[l]) == hit ? term(i) : T(0); }, totals);
  };
  const auto value = [=](Index i) { return v[i]; };
  sum_where(
      true, [](Index) { return T(1); }, hits.data());
  sum_where(true, value, hit_sum.data());
  sum_where(
      false, [=](Index i) { return w[i]; }, others.data());
  sum_where(false, value, other_sum.data());
  lines.each([&](Index i, Index line) {
    if (w[i] != top[line] || !(w[i] > T(small_share))) return;
    const auto l = static_cast<std::size_t>(line);
    const double largest = w[i], x = v[i], total = hits[l] * largest + others[l];
    if (std::isfinite(total))
      y[i] = static_cast<T>(
          (largest * (hits[l] * x - hit_sum[l]) + (x * others[l] - largest * other_sum[l])) /
          total);
  });
}

template <class T, class Lines>
void times_transposed_jacobian(const T* v, const T* w, T* y, Lines lines) {
  PerLine<double, Lines> totals, sums;
  PerLine<T, Lines> top, slopes;
  lines.template sum<T>([=](Index i, Index) { return w[i]; }, totals.data());
  lines.template sum<T>([=](Index i, Index) { return v[i]; }, sums.data());
  for (std::size_t l = 0; l < static_cast<std::size_t>(lines.lines()); ++l)
    slopes[l] = static_cast<T>(sums[l] / totals[l]);
  lines.each([=, slope = slopes.data()](Index i, Index l) { y[i] = v[i] - w[i] * slope[l]; });
  if (find_largest(w, lines, top)) correct_largest(v, w, y, lines, top.data());
}

template <class T>
void times_jacobian(Ctx<T> c, const Jacobian& j) {
  const auto apply = [&](Index first, auto lines) {
    const T *v = c.in(0).data() + first, *w = c.in(1).data() + first;
    T* y = c.out().data() + first;
    if (j.transposed)
      times_transposed_jacobian(v, w, y, lines);
    else
      times_jacobian_itself(v, w, y, lines);
  };
  const AxisView view(c.shape(0), static_cast<int>(j.axis));
  if (view.size == 0 || view.inner == 0) return;
  constexpr Index most = Columns::most, worth_a_fork = 1 << 16;  // elements
  if (view.inner == 1)
    return spread(view.outer, view.size, worth_a_fork,
                  [&](Index o) { apply(o * view.size, Row{view.size}); });
  const Index groups = (view.inner + most - 1) / most;
  spread(view.outer * groups, view.size * std::min(most, view.inner), worth_a_fork, [&](Index k) {
    const Index i = k % groups * most;
    apply(k / groups * view.size * view.inner + i,
          Columns{view.size, std::min(most, view.inner - i), view.inner});
  });
}

REEL_EARLY const Op<Jacobian> times_jacobian_op{{
    .name = "times_log_softmax_jacobian",
    .arguments = {"v", "w"},
    .shape = [](const Arguments& in) -> Shape {
      if (in[0] != in[1]) in.fail("v and w must have one shape");
      return in[0];
    },
    .forward = []<Real T>(Ctx<T> c, const Jacobian& j) { times_jacobian(c, j); },
    .gradient = rule(
        [](Vjp& v, const Jacobian& j) {
          const auto line_sum = [&](const Tensor& x) {
            return sum(x, static_cast<int>(j.axis), true);
          };
          v.add(0, [&] { return times_jacobian(v.g(), v.in(1), j.axis, !j.transposed); });
          v.add(1, [&] {
            const Tensor slopes =
                j.transposed ? times_jacobian(v.g(), v.in(1), j.axis, false) : v.out();
            const Tensor factor = line_sum(j.transposed ? v.in(0) : v.g()) / line_sum(v.in(1));
            return -(factor * slopes);
          });
        },
        keeps_all),
    .samples = {with_inputs(normal({3, 4}), positive({3, 4})).attr(Jacobian{1, false}),
                with_inputs(normal({3, 4}), positive({3, 4})).attr(Jacobian{1, true}),
                with_inputs(normal({2, 3, 4}), positive({2, 3, 4})).attr(Jacobian{1, false}),
                with_inputs(normal({2, 17, 3}), positive({2, 17, 3})).attr(Jacobian{1, true}),
                with_inputs(normal({3, 1}), positive({3, 1})).attr(Jacobian{1, true}),
                with_inputs(normal({0, 3}), positive({0, 3})).attr(Jacobian{1, false}),
                with_inputs(normal({3, 0}), positive({3, 0})).attr(Jacobian{1, true})},
}};

Tensor times_jacobian(const Tensor& v, const Tensor& w, std::int64_t axis, bool transposed) {
  return times_jacobian_op({&v, &w}, {axis, transposed}, {});
}

// --- softmax and log_softmax ---

// Calls f(x, y, size) for each line along the axis; x and y are contiguous and may be the same.
template <class T, class F>
void map_lines(Ctx<T> c, int axis, F f) {
  const AxisView view(c.shape(0), axis);
  if (view.size == 0) return;
  const Index size = view.size, stride = view.inner;
  constexpr Index worth_a_fork = 1 << 14;  // exponentials
  spread(view.outer * stride, size, worth_a_fork, [&](Index line) {
    const Index first = line / stride * size * stride + line % stride;
    const T* x = c.in(0).data() + first;
    T* y = c.out().data() + first;
    if (stride == 1) return f(x, y, size);
    const Scratch<T> own(size);
    for (Index i = 0; i < size; ++i) own[i] = x[i * stride];
    f(own.data(), own.data(), size);
    for (Index i = 0; i < size; ++i) y[i * stride] = own[i];
  });
}

REEL_EARLY const Op<Along> softmax_op{{
    .name = "softmax",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Along& along) {
          map_lines(c, along.axis, [](const T* x, T* y, Index size) {
            const T sum = Powers<T>(Line<T>{x, size}, y).sum();
            for (Index i = 0; i < size; ++i) y[i] /= sum;
          });
        },
    .gradient = rule(
        [](Vjp& v, const Along& along) {
          v.add(0, [&] { return v.out() * times_jacobian(v.g(), v.out(), along.axis, false); });
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
          map_lines(c, along.axis, [](const T* x, T* y, Index size) {
            const LogSum<T> sum = detail::log_sum_exp(x, size);
            for (Index i = 0; i < size; ++i) y[i] = sum.log_share(x[i]);
          });
        },
    .gradient = rule(
        [](Vjp& v, const Along& along) {
          v.add(0, [&] { return times_jacobian(v.g(), exp(v.out()), along.axis, true); });
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
  if (const Index size = detail::group_size(c.shape(0), r); detail::contiguous(c.shape(0), r)) {
    for (Index j = 0; j < n; ++j) {
      const LogSum<T> sum = detail::log_sum_exp(c.in(0).data() + j * size, size);
      const bool none = sum.largest == -infinity;
      largest[j] = none ? T(0) : sum.largest;
      rest[j] = none ? -infinity : sum.rest;
    }
  } else {
    detail::fold(c, r, c.out(), -infinity, [](T y, T x) { return x > y || x != x ? x : y; });
    for (Index j = 0; j < n; ++j) largest[j] = y[j] == -infinity ? T(0) : y[j];
    detail::fold_sum(c, r,
                     [&](T x, Index j) { return kernels::vexp(from_largest(x, largest[j])); });
    for (Index j = 0; j < n; ++j) rest[j] = kernels::vlog(y[j]);
  }
  for (Index j = 0; j < n; ++j) y[j] = largest[j] + rest[j];
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

// Axis by axis, x - log_softmax(x) of a largest x; -∞ if all x are.
Tensor log_sum_in_ops(const Tensor& x, const Reduction& r) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Tensor y = x;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (!(r.axes >> axis & 1) || y.size() == 0) continue;
    const Tensor top = argmax(y.detach(), axis, true);
    const Tensor none = equal(take_along(y.detach(), top, axis), scalar(-infinity, x.dtype()));
    const Tensor some = masked_fill(y, none, 0);
    y = take_along(some, top, axis) - take_along(log_softmax(some, axis), top, axis);
    y = masked_fill(y, none, -infinity);
  }
  return reshape(y, detail::result_shape(x.shape(), r));
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
  return softmax_op({&x}, {axis_of(x, axis, "softmax", site)}, site);
}

Tensor log_softmax(const Tensor& x, Arg<int> axis, Site site) {
  return log_softmax_op({&x}, {axis_of(x, axis, "log_softmax", site)}, site);
}

}  // namespace reel

namespace reel::op::linked {
void softmax() {}
}  // namespace reel::op::linked
