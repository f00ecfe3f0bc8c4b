#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/axis.h>
#include <reel/autograd/ops/check_indices.h>

namespace reel {
using namespace op;
namespace {

// --- take_along and scatter_along: each is the other's adjoint ---

// Calls f(i, j) for each position i in the indices, where j is the position, in an array whose axis
// has `size` elements, to which that index points.
template <class F>
void each_index(std::span<const std::int32_t> indices, const Shape& shape, int axis, Index size,
                F f) {
  const AxisView view(shape, axis);
  std::size_t i = 0;
  for (Index o = 0; o < view.outer; ++o)
    for (Index k = 0; k < view.size; ++k)
      for (Index inner = 0; inner < view.inner; ++inner, ++i)
        f(i, static_cast<std::size_t>((o * size + indices[i]) * view.inner + inner));
}

REEL_EARLY const Op<Along> take_along_op{{
    .name = "take_along",
    .arguments = {"x", integer("indices")},
    .shape = [](const Arguments& in, const Along& along) -> Shape {
      if (in[0].rank() != in[1].rank() || in[0].with(along.axis, 0) != in[1].with(along.axis, 0))
        in.fail(fmt::format("shapes must agree on all axes but {}", along.axis));
      return in[1];
    },
    .forward =
        []<class T>(Ctx<T> c, const Along& along) {
          const Index size = c.shape(0)[along.axis];
          check_indices("take_along", "index", "elements of the axis", c.indices(1), size);
          const auto x = c.in(0);
          const auto y = c.out();
          each_index(c.indices(1), c.shape(1), along.axis, size,
                     [&](std::size_t i, std::size_t j) { y[i] = x[j]; });
        },
    .gradient = rule(
        [](Vjp& v, const Along& along) {
          v.add(0,
                [&] { return scatter_along(v.g(), v.in(1), v.shape(0)[along.axis], along.axis); });
        },
        Keeps::input(1)),
    .samples = {with_inputs(normal({4, 3}), indices({2, 3}, 4)).attr(Along{0}),
                with_inputs(normal({2, 3, 2}), indices({2, 7, 2}, 3)).attr(Along{1}),
                with_inputs(normal({1}), indices({5}, 1)).attr(Along{0}),
                with_inputs(normal({2, 3}), indices({2, 0}, 3)).attr(Along{1}),
                with_inputs(normal({0, 3}), indices({0, 2}, 3)).attr(Along{1})},
}};

struct Scattering {
  std::int64_t axis;
  Index size;
};

REEL_EARLY const Op<Scattering> scatter_along_op{{
    .name = "scatter_along",
    .arguments = {"source", integer("indices")},
    .shape = [](const Arguments& in, const Scattering& to) -> Shape {
      if (in[0] != in[1]) in.fail("source and indices must have one shape");
      if (to.size < 0) in.fail(fmt::format("an axis cannot have {} elements", to.size));
      return in[0].with(static_cast<int>(to.axis), to.size);
    },
    .forward =
        []<class T>(Ctx<T> c, const Scattering& to) {
          const int axis = static_cast<int>(to.axis);
          check_indices("scatter_along", "index", "elements of the axis", c.indices(1), to.size);
          const auto source = c.in(0);
          const auto y = c.out();
          const Scratch<kernels::Total<T>> total(std::ssize(y));
          std::fill_n(total.data(), std::ssize(y), kernels::Total<T>(0));
          each_index(c.indices(1), c.shape(1), axis, to.size, [&](std::size_t i, std::size_t j) {
            total[static_cast<Index>(j)] += source[i];
          });
          std::transform(total.data(), total.data() + std::ssize(y), y.begin(),
                         [](kernels::Total<T> sum) { return static_cast<T>(sum); });
        },
    .gradient = rule(
        [](Vjp& v, const Scattering& to) {
          v.add(0, [&] { return take_along(v.g(), v.in(1), static_cast<int>(to.axis)); });
        },
        Keeps::input(1)),
    .samples = {with_inputs(normal({2, 3}), indices({2, 3}, 4)).attr(Scattering{0, 4}),
                with_inputs(normal({2, 7, 2}), indices({2, 7, 2}, 3)).attr(Scattering{1, 3}),
                with_inputs(normal({5}), indices({5}, 1)).attr(Scattering{0, 1}),
                with_inputs(normal({2, 0}), indices({2, 0}, 3)).attr(Scattering{1, 3})},
}};

}  // namespace

Tensor take_along(const Tensor& x, const Tensor& indices, Arg<int> axis, Site site) {
  return take_along_op({&x, &indices}, {axis_of(x, axis, "take_along", site)}, site);
}

Tensor scatter_along(const Tensor& source, const Tensor& indices, Arg<Index> size, Arg<int> axis,
                     Site site) {
  return scatter_along_op({&source, &indices}, {axis_of(source, axis, "scatter_along", site), size},
                          site);
}

}  // namespace reel

namespace reel::op::linked {
void along() {}
}  // namespace reel::op::linked
