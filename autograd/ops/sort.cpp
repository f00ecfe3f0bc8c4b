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

// Writes the positions of the first elements in sorted order along an axis, as many as the output
// has room for.
template <class T>
void order(Ctx<T> c, int axis, bool descending) {
  const AxisView x(c.shape(0), axis);
  const Index count = c.out_shape()[axis];
  Scratch<std::int32_t> positions(x.size);
  const auto begin = positions.data(), end = begin + x.size;
  for (Index o = 0; o < x.outer; ++o)
    for (Index inner = 0; inner < x.inner; ++inner) {
      std::iota(begin, end, 0);
      std::partial_sort(
          begin, begin + count, end,
          Before<T>{c.in(0).data() + o * x.size * x.inner + inner, x.inner, descending});
      std::int32_t* y = c.integer_out().data() + o * count * x.inner + inner;
      for (Index k = 0; k < count; ++k) y[k * x.inner] = positions[k];
    }
}

void check_countable(const Arguments& in, int axis) {
  if (in[0][axis] > std::numeric_limits<std::int32_t>::max())
    in.fail(fmt::format("axis {} has more elements than an i32 can number", axis));
}

struct Ordering {
  int axis;
  bool descending;
};

REEL_EARLY const Op<Ordering> argsort_op{{
    .name = "argsort",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Ordering& d) -> Shape {
      check_countable(in, d.axis);
      return in[0];
    },
    .forward = []<class T>(Ctx<T> c, const Ordering& d) { order(c, d.axis, d.descending); },
    .gradient = none("an order is made of integers; the values of sort() have a gradient"),
    .samples = {with_inputs(distinct({5, 3})).attr(Ordering{0, false}),
                with_inputs(distinct({2, 17})).attr(Ordering{1, true}),
                with_inputs(values({2, -1, 2, 2, -1})).attr(Ordering{0, true}),
                with_inputs(distinct({2, 1, 3})).attr(Ordering{1, false}),
                with_inputs(distinct({0, 3})).attr(Ordering{0, false})},
    .integer_output = true,
}};

struct Largest {
  std::int64_t axis;
  Index count;
};

std::string too_many(Index count, Index size, int axis) {
  return fmt::format("there are no {} largest among the {} elements of axis {}", count, size, axis);
}

REEL_EARLY const Op<Largest> topk_indices_op{{
    .name = "topk_indices",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Largest& l) -> Shape {
      const int axis = static_cast<int>(l.axis);
      check_countable(in, axis);
      if (l.count < 0 || l.count > in[0][axis]) in.fail(too_many(l.count, in[0][axis], axis));
      return in[0].with(axis, l.count);
    },
    .forward = []<class T>(Ctx<T> c,
                           const Largest& l) { order(c, static_cast<int>(l.axis), true); },
    .gradient = none("positions are integers; the values of topk() have a gradient"),
    .samples = {with_inputs(distinct({5, 3})).attr(Largest{0, 2}),
                with_inputs(distinct({2, 17})).attr(Largest{1, 5}),
                with_inputs(values({2, -1, 2, 2, -1})).attr(Largest{0, 4}),
                with_inputs(distinct({2, 3})).attr(Largest{1, 0}),
                with_inputs(distinct({0, 3})).attr(Largest{1, 3})},
    .integer_output = true,
}};

}  // namespace

Tensor argsort(const Tensor& x, Arg<int> axis, Arg<bool> descending, Site site) {
  return argsort_op({&x}, {axis_of(x, axis, "argsort", site), descending}, site);
}

Tensor topk_indices(const Tensor& x, Arg<Index> k, Arg<int> axis, Site site) {
  return topk_indices_op({&x}, {axis_of(x, axis, "topk_indices", site), k}, site);
}

Ordered sort(const Tensor& x, Arg<int> axis, Arg<bool> descending, Site site) {
  const Tensor order = argsort(x, axis, descending, site);
  return {take_along(x, order, axis, site), order};
}

Ordered topk(const Tensor& x, Arg<Index> k, Arg<int> axis, Site site) {
  const int along = axis_of(x, axis, "topk", site);
  const Index size = x.shape()[along];
  if (k < 0 || k > size)
    throw ShapeError(fmt::format("topk: {}; x is {} {}", too_many(k, size, along),
                                 name_of(x.dtype()), x.shape().str()),
                     site);
  const Tensor largest = topk_indices(x, k, axis, site);
  return {take_along(x, largest, axis, site), largest};
}

}  // namespace reel
