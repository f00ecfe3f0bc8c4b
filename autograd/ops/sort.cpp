#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/axis.h>

namespace reel {
using namespace op;
namespace {

// Orders positions by their elements, with NaN after all numbers; the order is stable.
template <class T>
struct Before {
  const T* x;
  Index stride;
  bool descending;

  bool operator()(std::int32_t i, std::int32_t j) const {
    const T a = x[i * stride], b = x[j * stride];
    if (a != a || b != b) return a == a || (b != b && i < j);
    if (a == b) return i < j;
    return (a < b) != descending;
  }
};

// Writes the positions of the first elements in sorted order along an axis, as many as the last
// output has room for, and their values if there are two outputs.
template <bool with_values, class T>
void order(Ctx<T> c, int axis, bool descending) {
  const AxisView x(c.shape(0), axis);
  const Index count = c.out_shape()[axis];
  Scratch<std::int32_t> positions(x.size);
  const auto begin = positions.data(), end = begin + x.size;
  for (Index o = 0; o < x.outer; ++o)
    for (Index inner = 0; inner < x.inner; ++inner) {
      const T* from = c.in(0).data() + o * x.size * x.inner + inner;
      std::iota(begin, end, 0);
      std::partial_sort(begin, begin + count, end, Before<T>{from, x.inner, descending});
      const Index first = o * count * x.inner + inner;
      std::int32_t* y = c.integer_out(with_values ? 1 : 0).data() + first;
      for (Index k = 0; k < count; ++k) y[k * x.inner] = positions[k];
      if constexpr (with_values) {
        T* values = c.out().data() + first;
        for (Index k = 0; k < count; ++k) values[k * x.inner] = from[positions[k] * x.inner];
      }
    }
}

// The values go back to the places from which they came.
constexpr auto places = [](Vjp& v, const auto& attr) {
  const int axis = static_cast<int>(attr.axis);
  v.add(0, [&] { return scatter_along(v.g(), v.out(1), v.shape()[axis], axis); });
};

void check_countable(const Arguments& in, int axis) {
  if (in[0][axis] > std::numeric_limits<std::int32_t>::max())
    in.fail(fmt::format("axis {} has more elements than an i32 can number", axis));
}

struct Ordering {
  int axis;
  bool descending;
};

REEL_EARLY const Samples<Ordering> ordering_samples{
    with_inputs(distinct({5, 3})).attr(Ordering{0, false}),
    with_inputs(distinct({2, 17})).attr(Ordering{1, true}),
    with_inputs(distinct({2, 1, 3})).attr(Ordering{1, false}),
    with_inputs(distinct({0, 3})).attr(Ordering{0, false}),
};

REEL_EARLY const Op<Ordering> sort_op{{
    .name = "sort",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Ordering& d) -> Shapes {
      check_countable(in, d.axis);
      return {in[0], integer(in[0])};
    },
    .forward = []<class T>(Ctx<T> c, const Ordering& d) { order<true>(c, d.axis, d.descending); },
    .gradient = rule(places, Keeps::output(1)),
    .samples = ordering_samples,
}};

REEL_EARLY const Op<Ordering> argsort_op{{
    .name = "argsort",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Ordering& d) -> OutputShape {
      check_countable(in, d.axis);
      return integer(in[0]);
    },
    .forward = []<class T>(Ctx<T> c, const Ordering& d) { order<false>(c, d.axis, d.descending); },
    .gradient = none("an order is made of integers; the values of sort() have a gradient"),
    .samples = ordering_samples,
}};

struct Largest {
  std::int64_t axis;
  Index count;
};

Shape largest_shape(const Arguments& in, const Largest& l) {
  const int axis = static_cast<int>(l.axis);
  check_countable(in, axis);
  if (l.count < 0 || l.count > in[0][axis])
    in.fail(fmt::format("there are no {} largest among the {} elements of axis {}", l.count,
                        in[0][axis], axis));
  return in[0].with(axis, l.count);
}

REEL_EARLY const Samples<Largest> largest_samples{
    with_inputs(distinct({5, 3})).attr(Largest{0, 2}),
    with_inputs(distinct({2, 17})).attr(Largest{1, 5}),
    with_inputs(distinct({2, 3})).attr(Largest{1, 0}),
    with_inputs(distinct({0, 3})).attr(Largest{1, 3}),
};

REEL_EARLY const Op<Largest> topk_op{{
    .name = "topk",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Largest& l) -> Shapes {
      const Shape shape = largest_shape(in, l);
      return {shape, integer(shape)};
    },
    .forward = []<class T>(Ctx<T> c,
                           const Largest& l) { order<true>(c, static_cast<int>(l.axis), true); },
    .gradient = rule(places, Keeps::output(1)),
    .samples = largest_samples,
}};

REEL_EARLY const Op<Largest> topk_indices_op{{
    .name = "topk_indices",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Largest& l) { return integer(largest_shape(in, l)); },
    .forward = []<class T>(Ctx<T> c,
                           const Largest& l) { order<false>(c, static_cast<int>(l.axis), true); },
    .gradient = none("positions are integers; the values of topk() have a gradient"),
    .samples = largest_samples,
}};

Ordered both(const Tensors& y) { return {y[0], y[1]}; }

}  // namespace

Tensor argsort(const Tensor& x, Arg<int> axis, Arg<bool> descending, Site site) {
  return argsort_op({&x}, {axis_of(x, axis, "argsort", site), descending}, site);
}

Tensor topk_indices(const Tensor& x, Arg<Index> k, Arg<int> axis, Site site) {
  return topk_indices_op({&x}, {axis_of(x, axis, "topk_indices", site), k}, site);
}

Ordered sort(const Tensor& x, Arg<int> axis, Arg<bool> descending, Site site) {
  const Tensor* const inputs[] = {&x};
  return both(sort_op.all(inputs, {axis_of(x, axis, "sort", site), descending}, site));
}

Ordered topk(const Tensor& x, Arg<Index> k, Arg<int> axis, Site site) {
  const Tensor* const inputs[] = {&x};
  return both(topk_op.all(inputs, {axis_of(x, axis, "topk", site), k}, site));
}

}  // namespace reel

namespace reel::op::linked {
void sort() {}
}  // namespace reel::op::linked
