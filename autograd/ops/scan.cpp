#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/lines.h>

namespace reel {
using namespace op;
namespace {

using detail::each_line;

struct Scan {
  int axis;
  bool reverse;
};

REEL_EARLY const Op<Scan> cumsum_op{{
    .name = "cumsum",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c, const Scan& scan) {
          const Index size = c.shape(0)[scan.axis], stride = c.shape(0).stride(scan.axis);
          const Index step = scan.reverse ? -stride : stride;
          const T* x = c.in(0).data();
          T* y = c.out().data();
          each_line(c.shape(0), scan.axis, [&](Index first, Index) {
            Index at = scan.reverse ? first + (size - 1) * stride : first;
            kernels::Total<T> sum = 0;
            for (Index i = 0; i < size; ++i, at += step)
              y[at] = static_cast<T>(sum += static_cast<kernels::Total<T>>(x[at]));
          });
        },
    .gradient = rule(
        [](Vjp& v, const Scan& scan) {
          v.add(0, [&] { return cumsum(v.g(), scan.axis, !scan.reverse); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({3, 4})).attr(Scan{0, false}),
                with_inputs(normal({3, 4})).attr(Scan{1, true}),
                with_inputs(normal({2, 3, 1, 2})).attr(Scan{1, false}),
                with_inputs(normal({17})).attr(Scan{0, false}),
                with_inputs(normal({3, 1})).attr(Scan{1, false}),
                with_inputs(normal({0, 3})).attr(Scan{0, true}),
                with_inputs(normal({0, 3})).attr(Scan{1, false})},
}};

}  // namespace

Tensor cumsum(const Tensor& x, Arg<int> axis, Arg<bool> reverse, Site site) {
  return cumsum_op({&x}, {axis_of(x, axis, "cumsum", site), reverse}, site);
}

}  // namespace reel

namespace reel::op::linked {
void scan() {}
}  // namespace reel::op::linked
