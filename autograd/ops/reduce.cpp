#include <fmt/format.h>

#include <limits>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/op.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

struct Reduction {
  std::uint32_t axes;  // a bit for each
  bool keepdims;
};

// The shape with every reduced axis of size 1.
Shape reduced(const Shape& shape, std::uint32_t axes) {
  Shape result = shape;
  for (int axis = 0; axis < shape.rank(); ++axis)
    if (axes >> axis & 1) result = result.with(axis, 1);
  return result;
}

Shape reduced_shape(const Shape& shape, const Reduction& r) {
  Shape result = reduced(shape, r.axes);
  for (int axis = shape.rank() - 1; axis >= 0 && !r.keepdims; --axis)
    if (r.axes >> axis & 1) result = result.erase(axis);
  return result;
}

constexpr auto nonempty_reduction = [](const Arguments& in, const Reduction& r) -> Shape {
  if (in[0].size() == 0 && reduced(in[0], r.axes).size() > 0)
    in.fail("there is nothing to reduce along an empty axis");
  return reduced_shape(in[0], r);
};

// Brings a reduction's result or gradient back to where it broadcasts against the input.
Tensor restored(const Tensor& y, const Shape& input, const Reduction& r) {
  return reshape(y, reduced(input, r.axes));
}

// Calls f(y, x) for each element x and the element y of the result that it is reduced to.
template <class T, class F>
void fold(Ctx<T> c, const Reduction& r, F f) {
  const Shape small = reduced(c.shape(0), r.axes);
  const kernels::BroadcastPlan<1> plan(c.shape(0), {&small});
  const T* x = c.in(0).data();
  T* y = c.out().data();
  plan.each_row([&](const auto& offset, Index n, const auto& stride) {
    for (Index i = 0; i < n; ++i) f(y[offset[0] + i * stride[0]], x[i]);
    x += n;
  });
}

template <class T>
void fold_max(Ctx<T> c, const Reduction& r) {
  std::ranges::fill(c.out(), std::numeric_limits<T>::has_infinity
                                 ? -std::numeric_limits<T>::infinity()
                                 : std::numeric_limits<T>::lowest());
  fold(c, r, [](T& y, T x) { y = x > y || x != x ? x : y; });
}

const Op<Reduction> max_op{{
    .name = "max",
    .arguments = {"x"},
    .shape = nonempty_reduction,
    .forward = []<class T>(Ctx<T> c, const Reduction& r) { fold_max(c, r); },
    .gradient = rule(
        [](Vjp& v, const Reduction& r) {
          const Tensor hits =
              where(equal(v.in().detach(), restored(v.out().detach(), v.shape(), r)),
                    scalar(1, v.g().dtype()), scalar(0, v.g().dtype()));
          const Tensor share = hits / sum_to(hits, reduced(v.shape(), r.axes));
          v.add(0, [&] { return restored(v.g(), v.shape(), r) * share; });
        },
        keeps_all),
    .samples = {with_inputs(distinct({3, 4})).attr(Reduction{3, false}),
                with_inputs(distinct({3, 4})).attr(Reduction{2, true}),
                with_inputs(distinct({2, 3, 4})).attr(Reduction{5, false}),
                with_inputs(distinct({0, 4})).attr(Reduction{2, false})},
}};

const Op<Reduction> logsumexp_op{{
    .name = "logsumexp",
    .arguments = {"x"},
    .shape = nonempty_reduction,
    .forward =
        []<Real T>(Ctx<T> c, const Reduction& r) {
          fold_max(c, r);
          const Index n = static_cast<Index>(c.out().size());
          Scratch<T> largest(n);
          for (Index i = 0; i < n; ++i) {
            // An infinite maximum must not turn its own difference into a NaN.
            const T y = c.out()[static_cast<std::size_t>(i)];
            largest[i] = y - y == 0 ? y : T(0);
          }
          std::ranges::fill(c.out(), T(0));
          const T* base = c.out().data();
          fold(c, r, [&](T& y, T x) { y += kernels::vexp(x - largest[&y - base]); });
          for (Index i = 0; i < n; ++i) {
            T& y = c.out()[static_cast<std::size_t>(i)];
            y = largest[i] + kernels::vlog(y);
          }
        },
    .gradient = rule(
        [](Vjp& v, const Reduction& r) {
          v.add(0, [&] {
            return restored(v.g(), v.shape(), r) * exp(v.in() - restored(v.out(), v.shape(), r));
          });
        },
        keeps_all),
    .samples = {with_inputs(normal({3, 4})).attr(Reduction{3, false}),
                with_inputs(normal({3, 4})).attr(Reduction{2, true}),
                with_inputs(normal({2, 3, 17})).attr(Reduction{5, false}),
                with_inputs(values({700, 710, -700})).attr(Reduction{1, false})},
}};

// --- along one axis ---

struct Along {
  int axis;
};

// Calls f(x, y, stride, size) for each line along the axis.
template <class T, class F>
void each_line(Ctx<T> c, int axis, F f) {
  const Index size = c.shape(0)[axis], stride = c.shape(0).stride(axis);
  const Index blocks = size == 0 ? 0 : static_cast<Index>(c.out().size()) / (size * stride);
  for (Index o = 0; o < blocks; ++o)
    for (Index i = 0; i < stride; ++i) {
      const Index offset = o * size * stride + i;
      f(c.in(0).data() + offset, c.out().data() + offset, stride, size);
    }
}

// Writes e^(x - max x) and returns the sum and the maximum.
template <class T>
struct Exponentials {
  T largest, sum;
  Exponentials(const T* x, T* y, Index stride, Index size) : largest(x[0]), sum(0) {
    for (Index i = 1; i < size; ++i) largest = std::max(largest, x[i * stride]);
    for (Index i = 0; i < size; ++i) y[i * stride] = kernels::vexp(x[i * stride] - largest);
    for (Index i = 0; i < size; ++i) sum += y[i * stride];
  }
};

const Op<Along> softmax_op{{
    .name = "softmax",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Along& along) {
          each_line(c, along.axis, [](const T* x, T* y, Index stride, Index size) {
            const Exponentials<T> e(x, y, stride, size);
            for (Index i = 0; i < size; ++i) y[i * stride] /= e.sum;
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
    .samples = {with_inputs(normal({3, 4})).attr(Along{1}),
                with_inputs(normal({2, 3, 4})).attr(Along{1}),
                with_inputs(normal({17})).attr(Along{0}),
                with_inputs(normal({0, 3})).attr(Along{1}),
                with_inputs(values({700, 690, -700})).attr(Along{0})},
}};

const Op<Along> log_softmax_op{{
    .name = "log_softmax",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Along& along) {
          each_line(c, along.axis, [](const T* x, T* y, Index stride, Index size) {
            const Exponentials<T> e(x, y, stride, size);
            const T log_sum = e.largest + kernels::vlog(e.sum);
            for (Index i = 0; i < size; ++i) y[i * stride] = x[i * stride] - log_sum;
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
                with_inputs(values({700, 690, -700})).attr(Along{0})},
}};

Reduction reduction(const Tensor& x, const Axes& axes, bool keepdims, const char* op, Site site) {
  return {axes.mask(x.rank(), op, site), keepdims};
}

}  // namespace

std::uint32_t Axes::mask(int rank, const char* op, Site site) const {
  if (axes_.empty()) return (1u << rank) - 1;
  std::uint32_t bits = 0;
  for (int axis : axes_) bits |= 1u << normalized_axis(axis, rank, op, site);
  return bits;
}

// A sum is the adjoint of a broadcast, which is an op already.
Tensor sum(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  const Reduction r = reduction(x, axes, keepdims, "sum", site);
  const Tensor kept = sum_to(x, reduced(x.shape(), r.axes), site);
  return r.keepdims ? kept : reshape(kept, reduced_shape(x.shape(), r), site);
}

Tensor mean(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  const SiteScope scope(site);
  const Tensor total = sum(x, axes, keepdims);
  return total * (static_cast<double>(total.size()) / static_cast<double>(x.size()));
}

Tensor max(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  return max_op({&x}, reduction(x, axes, keepdims, "max", site), site);
}

Tensor logsumexp(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  return logsumexp_op({&x}, reduction(x, axes, keepdims, "logsumexp", site), site);
}

Tensor softmax(const Tensor& x, int axis, Site site) {
  return softmax_op({&x}, {normalized_axis(axis, x.rank(), "softmax", site)}, site);
}

Tensor log_softmax(const Tensor& x, int axis, Site site) {
  return log_softmax_op({&x}, {normalized_axis(axis, x.rank(), "log_softmax", site)}, site);
}

}  // namespace reel
