#include <fmt/format.h>
#include <fmt/ranges.h>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/axis.h>

namespace reel {
using namespace op;
namespace {

// --- slice and pad: each is the other's adjoint ---

// How many elements are spanned by `count` elements that are `step` apart.
Index span_of(Index count, Index step) { return count == 0 ? 0 : (count - 1) * step + 1; }

// As the caller wrote it: a negative begin or end counts from the end of the axis.
struct Range {
  std::int64_t axis;
  Index begin, end, step;

  Range within(Index size) const {
    return {axis, begin < 0 ? begin + size : begin, end < 0 ? end + size : end, step};
  }
  Index count() const { return (end - begin) / step + ((end - begin) % step != 0); }
};

REEL_EARLY const Op<Range> slice_op{{
    .name = "slice",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Range& written) -> Shape {
      const int axis = static_cast<int>(written.axis);
      if (written.step < 1)
        in.fail(fmt::format("the step must be at least 1, not {}; flip() reverses", written.step));
      const Range range = written.within(in[0][axis]);
      if (range.begin < 0 || range.begin > range.end || range.end > in[0][axis])
        in.fail(fmt::format("elements {} to {} of axis {} do not exist", written.begin, written.end,
                            axis));
      return in[0].with(axis, range.count());
    },
    .forward =
        []<class T>(Ctx<T> c, const Range& written) {
          const AxisView x(c.shape(0), static_cast<int>(written.axis));
          const Range range = written.within(x.size);
          const Index count = range.count();
          // With step 1 the elements are one contiguous run.
          const Index runs = range.step == 1 ? 1 : count;
          const Index run = range.step == 1 ? count * x.inner : x.inner;
          T* y = c.out().data();
          for (Index o = 0; o < x.outer; ++o) {
            const T* from = c.in(0).data() + (o * x.size + range.begin) * x.inner;
            for (Index i = 0; i < runs; ++i)
              y = std::copy_n(from + i * range.step * x.inner, run, y);
          }
        },
    .gradient = rule(
        [](Vjp& v, const Range& written) {
          const int axis = static_cast<int>(written.axis);
          const Range range = written.within(v.shape()[axis]);
          v.add_slice(0, v.g(), axis, range.begin, range.step);
        },
        keeps_nothing),
    .samples = {with_inputs(normal({5, 3})).attr(Range{0, 1, 4, 1}),
                with_inputs(normal({2, 5, 3})).attr(Range{1, 0, 2, 1}),
                with_inputs(normal({2, 7, 2})).attr(Range{1, 1, 6, 2}),
                with_inputs(normal({2, 7})).attr(Range{1, 0, 7, 3}),
                with_inputs(normal({3})).attr(Range{0, 1, 3, 9}),
                with_inputs(normal({2, 3})).attr(Range{1, 1, 1, 1}),
                with_inputs(normal({2, 3})).attr(Range{1, 3, 3, 2}),
                with_inputs(normal({2, 7})).attr(Range{1, -6, -1, 2}),
                with_inputs(normal({4})).attr(Range{0, 0, 4, 1})},
}};

struct Padding {
  std::int64_t axis;
  Index before, after, step;
};

REEL_EARLY const Op<Padding> pad_op{{
    .name = "pad",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Padding& p) -> Shape {
      if (p.before < 0 || p.after < 0)
        in.fail(fmt::format("cannot pad by {} and {}; use slice() to shorten", p.before, p.after));
      if (p.step < 1) in.fail(fmt::format("the step must be at least 1, not {}", p.step));
      const int axis = static_cast<int>(p.axis);
      if (std::max(p.before, p.after) > Shape::max_size ||
          p.step > Shape::max_size / std::max<Index>(in[0][axis], 1))
        in.fail("the result would have too many elements");
      return in[0].with(axis, p.before + span_of(in[0][axis], p.step) + p.after);
    },
    .forward =
        []<class T>(Ctx<T> c, const Padding& p) {
          const AxisView x(c.shape(0), static_cast<int>(p.axis));
          const Index runs = p.step == 1 ? 1 : x.size;
          const Index run = p.step == 1 ? x.size * x.inner : x.inner;
          const T* from = c.in(0).data();
          T* y = c.out().data();
          for (Index o = 0; o < x.outer; ++o) {
            y = std::fill_n(y, p.before * x.inner, T(0));
            for (Index i = 0; i < runs; ++i, from += run) {
              if (i > 0) y = std::fill_n(y, (p.step - 1) * x.inner, T(0));
              y = std::copy_n(from, run, y);
            }
            y = std::fill_n(y, p.after * x.inner, T(0));
          }
        },
    .gradient = rule(
        [](Vjp& v, const Padding& p) {
          const int axis = static_cast<int>(p.axis);
          const Index end = p.before + span_of(v.shape()[axis], p.step);
          v.add(0, [&] { return slice(v.g(), axis, p.before, end, p.step); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({3, 2})).attr(Padding{0, 1, 2, 1}),
                with_inputs(normal({2, 3, 2})).attr(Padding{1, 0, 1, 1}),
                with_inputs(normal({2, 3, 2})).attr(Padding{1, 1, 2, 3}),
                with_inputs(normal({1})).attr(Padding{0, 0, 0, 5}),
                with_inputs(normal({2, 0})).attr(Padding{1, 1, 1, 2}),
                with_inputs(normal({0, 2})).attr(Padding{0, 2, 0, 1})},
}};

// --- flip ---

REEL_EARLY const Op<Along> flip_op{{
    .name = "flip",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c, const Along& along) {
          const AxisView x(c.shape(0), along.axis);
          for (Index o = 0; o < x.outer; ++o)
            for (Index i = 0; i < x.size; ++i)
              std::copy_n(c.in(0).data() + (o * x.size + i) * x.inner, x.inner,
                          c.out().data() + (o * x.size + x.size - 1 - i) * x.inner);
        },
    .gradient =
        rule([](Vjp& v, const Along& along) { v.add(0, [&] { return flip(v.g(), along.axis); }); },
             keeps_nothing),
    .samples = {with_inputs(normal({5})).attr(Along{0}),
                with_inputs(normal({2, 3, 2})).attr(Along{1}),
                with_inputs(normal({2, 3})).attr(Along{1})},
}};

// Throws ShapeError for sizes that do not add up to the size of the axis.
void check_pieces(const Tensor& x, int axis, std::span<const Index> sizes, Site site) {
  Index rest = x.shape()[axis];
  bool valid = true;
  for (Index s : sizes) {
    valid = valid && s >= 0 && s <= rest;
    if (valid) rest -= s;
  }
  if (!valid || rest != 0)
    throw ShapeError(fmt::format("split: sizes ({}) do not make up axis {} of shape {}",
                                 fmt::join(sizes, ", "), axis, x.shape().str()),
                     site);
}

}  // namespace

Tensor slice(const Tensor& x, Arg<int> axis, Arg<Index> begin, Arg<Index> end, Arg<Index> step,
             Site site) {
  return slice_op({&x}, {axis_of(x, axis, "slice", site), begin, end, step}, site);
}

Tensor select(const Tensor& x, Arg<int> axis, Arg<Index> i, Site site) {
  const int along = axis_of(x, axis, "select", site);
  const Index size = x.shape()[along];
  if (i < -size || i >= size)
    throw ShapeError(fmt::format("select: axis {} of shape {} has no element {}", along,
                                 x.shape().str(), Index(i)),
                     site);
  const Index at = i < 0 ? i + size : Index(i);
  return squeeze(slice(x, along, at, at + 1, 1, site), along, site);
}

Tensor Tensor::operator[](const Place& place) const {
  return select(*this, 0, place.index, place.site);
}

Tensor pad(const Tensor& x, Arg<int> axis, Arg<Index> before, Arg<Index> after, Arg<Index> step,
           Site site) {
  return pad_op({&x}, {axis_of(x, axis, "pad", site), before, after, step}, site);
}

Tensor flip(const Tensor& x, Arg<int> axis, Site site) {
  return flip_op({&x}, {axis_of(x, axis, "flip", site)}, site);
}

Tensors split(const Tensor& x, std::span<const Index> sizes, Arg<int> axis, Site site) {
  const int along = axis_of(x, axis, "split", site);
  check_pieces(x, along, sizes, site);
  Tensors result;
  Index begin = 0;
  for (Index size : sizes) {
    result.push_back(slice(x, along, begin, begin + size, 1, site));
    begin += size;
  }
  return result;
}

Tensors split(const Tensor& x, Arg<int> parts, Arg<int> axis, Site site) {
  const int along = axis_of(x, axis, "split", site);
  const Index size = x.shape()[along];
  if (parts < 1 || size % parts != 0)
    throw ShapeError(fmt::format("split: axis {} of shape {} has {} elements, not a multiple of {}",
                                 along, x.shape().str(), size, int(parts)),
                     site);
  return split(x, PoolVector<Index>(static_cast<std::size_t>(parts), size / parts), along, site);
}

}  // namespace reel

namespace reel::op::linked {
void slice() {}
}  // namespace reel::op::linked
