#include <algorithm>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/lines.h>

namespace reel {
using namespace op;
namespace {

// Calls f(x, y, stride, size) for each line along the axis.
template <class T, class F>
void map_lines(Ctx<T> c, int axis, F f) {
  const Index size = c.shape(0)[axis], stride = c.shape(0).stride(axis);
  if (size == 0) return;
  detail::each_line(c.shape(0), axis, [&](Index first, Index) {
    f(c.in(0).data() + first, c.out().data() + first, stride, size);
  });
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
          map_lines(c, along.axis, [](const T* x, T* y, Index stride, Index size) {
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
    .samples =
        {with_inputs(normal({3, 4})).attr(Along{1}), with_inputs(normal({2, 3, 4})).attr(Along{1}),
         with_inputs(normal({17})).attr(Along{0}), with_inputs(normal({3, 1})).attr(Along{1}),
         with_inputs(normal({0, 3})).attr(Along{1}), with_inputs(normal({3, 0})).attr(Along{1}),
         with_inputs(values({700, 690, -700})).attr(Along{0})},
}};

const Op<Along> log_softmax_op{{
    .name = "log_softmax",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Along& along) {
          map_lines(c, along.axis, [](const T* x, T* y, Index stride, Index size) {
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
                with_inputs(normal({3, 1})).attr(Along{1}),
                with_inputs(normal({0, 3})).attr(Along{1}),
                with_inputs(values({700, 690, -700})).attr(Along{0})},
}};

}  // namespace

Tensor softmax(const Tensor& x, int axis, Site site) {
  return softmax_op({&x}, {normalized_axis(axis, x.rank(), "softmax", site)}, site);
}

Tensor log_softmax(const Tensor& x, int axis, Site site) {
  return log_softmax_op({&x}, {normalized_axis(axis, x.rank(), "log_softmax", site)}, site);
}

}  // namespace reel
