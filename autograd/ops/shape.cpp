#include <fmt/format.h>

#include <cstring>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/op.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

// An axis of a row-major array splits it in `outer` blocks of `size` runs of `inner` elements.
struct AxisView {
  Index outer, size, inner;
  AxisView(const Shape& shape, int axis) : outer(1), size(shape[axis]), inner(shape.stride(axis)) {
    for (int a = 0; a < axis; ++a) outer *= shape[a];
  }
};

template <class T>
void copy_run(const T* from, Index count, T* to) {
  std::copy_n(from, count, to);
}

// --- reshape ---

struct Target {
  Shape shape;
};

const Op<Target> reshape_op{{
    .name = "reshape",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Target& to) -> Shape {
      if (in[0].size() != to.shape.size())
        in.fail(fmt::format("{} elements cannot take shape {}", in[0].size(), to.shape.str()));
      return to.shape;
    },
    .forward =
        []<class T>(Ctx<T> c) {
          copy_run(c.in(0).data(), static_cast<Index>(c.out().size()), c.out().data());
        },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return reshape(v.g(), v.shape()); }); }, keeps_nothing),
    .samples = {with_inputs(normal({3, 4})).attr(Target{{2, 6}}),
                with_inputs(normal({1})).attr(Target{{}}),
                with_inputs(normal({0, 3})).attr(Target{{5, 0}})},
}};

// --- transpose ---

struct AxisPair {
  int first, second;
};

const Op<AxisPair> transpose_op{{
    .name = "transpose",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const AxisPair& axes) -> Shape {
      return in[0].with(axes.first, in[0][axes.second]).with(axes.second, in[0][axes.first]);
    },
    .forward =
        []<class T>(Ctx<T> c, const AxisPair& axes) {
          // Loops over the output's four axes; each steps through x by the stride of its origin.
          std::array<Index, 4> size{1, 1, 1, 1}, stride{};
          const Shape& out = c.out_shape();
          for (int axis = 0; axis < out.rank(); ++axis) {
            const int origin = axis == axes.first    ? axes.second
                               : axis == axes.second ? axes.first
                                                     : axis;
            const auto loop = static_cast<std::size_t>(axis + 4 - out.rank());
            size[loop] = out[axis];
            stride[loop] = c.shape(0).stride(origin);
          }
          const T* x = c.in(0).data();
          T* y = c.out().data();
          for (Index i = 0; i < size[0]; ++i)
            for (Index j = 0; j < size[1]; ++j)
              for (Index k = 0; k < size[2]; ++k) {
                const T* from = x + i * stride[0] + j * stride[1] + k * stride[2];
                for (Index l = 0; l < size[3]; ++l) *y++ = from[l * stride[3]];
              }
        },
    .gradient = rule(
        [](Vjp& v, const AxisPair& axes) {
          v.add(0, [&] { return transpose(v.g(), axes.first, axes.second); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({3, 4})).attr(AxisPair{0, 1}),
                with_inputs(normal({2, 3, 1, 5})).attr(AxisPair{1, 3}),
                with_inputs(normal({2, 3, 4})).attr(AxisPair{1, 1}),
                with_inputs(normal({0, 3})).attr(AxisPair{0, 1})},
}};

// --- broadcast_to and sum_to: each is the other's adjoint ---

bool stretches_to(const Shape& small, const Shape& large) {
  if (small.rank() > large.rank()) return false;
  for (int axis = 1; axis <= small.rank(); ++axis) {
    const Index s = small[small.rank() - axis];
    if (s != 1 && s != large[large.rank() - axis]) return false;
  }
  return true;
}

const Op<Target> broadcast_to_op{{
    .name = "broadcast_to",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Target& to) -> Shape {
      if (!stretches_to(in[0], to.shape))
        in.fail(fmt::format("it does not broadcast to {}", to.shape.str()));
      return to.shape;
    },
    .forward =
        []<class T>(Ctx<T> c) {
          const T* x = c.in(0).data();
          T* y = c.out().data();
          const kernels::BroadcastPlan<1> plan(c.out_shape(), {&c.shape(0)});
          plan.each_row([&](const auto& offset, Index n, const auto& stride) {
            for (Index i = 0; i < n; ++i) y[i] = x[offset[0] + i * stride[0]];
            y += n;
          });
        },
    .gradient =
        rule([](Vjp& v) { v.add(0, [&] { return sum_to(v.g(), v.shape()); }); }, keeps_nothing),
    .samples = {with_inputs(normal({4})).attr(Target{{3, 4}}),
                with_inputs(normal({2, 1, 3})).attr(Target{{5, 2, 4, 3}}),
                with_inputs(normal({})).attr(Target{{2, 3}}),
                with_inputs(normal({1, 3})).attr(Target{{0, 3}})},
}};

const Op<Target> sum_to_op{{
    .name = "sum_to",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Target& to) -> Shape {
      if (!stretches_to(to.shape, in[0]))
        in.fail(fmt::format("{} does not broadcast to it", to.shape.str()));
      return to.shape;
    },
    .forward =
        []<class T>(Ctx<T> c) {
          const T* x = c.in(0).data();
          T* y = c.out().data();
          std::ranges::fill(c.out(), T(0));
          const kernels::BroadcastPlan<1> plan(c.shape(0), {&c.out_shape()});
          plan.each_row([&](const auto& offset, Index n, const auto& stride) {
            T* to = y + offset[0];
            if (stride[0] == 1) {
              for (Index i = 0; i < n; ++i) to[i] += x[i];
            } else {
              // Sixteen partial sums, added in a fixed order.
              std::array<T, 16> lanes{};
              Index i = 0;
              for (; i + 16 <= n; i += 16)
                for (std::size_t l = 0; l < 16; ++l) lanes[l] += x[i + static_cast<Index>(l)];
              for (std::size_t l = 0; i < n; ++i, ++l) lanes[l] += x[i];
              for (std::size_t half = 8; half > 0; half /= 2)
                for (std::size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
              *to += lanes[0];
            }
            x += n;
          });
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return broadcast_to(v.g(), v.shape()); }); },
                     keeps_nothing),
    .samples = {with_inputs(normal({3, 4})).attr(Target{{4}}),
                with_inputs(normal({3, 4})).attr(Target{{3, 1}}),
                with_inputs(normal({2, 3, 40})).attr(Target{{}}),
                with_inputs(normal({5, 2, 4, 3})).attr(Target{{2, 1, 3}}),
                with_inputs(normal({0, 3})).attr(Target{{3}})},
}};

// --- slice and pad: each is the other's adjoint ---

struct Range {
  std::int64_t axis;
  Index begin, end;
};

const Op<Range> slice_op{{
    .name = "slice",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Range& range) -> Shape {
      const int axis = static_cast<int>(range.axis);
      if (range.begin < 0 || range.begin > range.end || range.end > in[0][axis])
        in.fail(
            fmt::format("elements {} to {} of axis {} do not exist", range.begin, range.end, axis));
      return in[0].with(axis, range.end - range.begin);
    },
    .forward =
        []<class T>(Ctx<T> c, const Range& range) {
          const AxisView x(c.shape(0), static_cast<int>(range.axis));
          const Index run = (range.end - range.begin) * x.inner;
          for (Index o = 0; o < x.outer; ++o)
            copy_run(c.in(0).data() + (o * x.size + range.begin) * x.inner, run,
                     c.out().data() + o * run);
        },
    .gradient = rule(
        [](Vjp& v, const Range& range) {
          const int axis = static_cast<int>(range.axis);
          v.add(0, [&] { return pad(v.g(), axis, range.begin, v.shape()[axis] - range.end); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({5, 3})).attr(Range{0, 1, 4}),
                with_inputs(normal({2, 5, 3})).attr(Range{1, 0, 2}),
                with_inputs(normal({2, 3})).attr(Range{1, 1, 1}),
                with_inputs(normal({4})).attr(Range{0, 0, 4})},
}};

struct Padding {
  std::int64_t axis;
  Index before, after;
};

const Op<Padding> pad_op{{
    .name = "pad",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Padding& p) -> Shape {
      if (p.before < 0 || p.after < 0)
        in.fail(fmt::format("cannot pad by {} and {}; use slice() to shorten", p.before, p.after));
      const int axis = static_cast<int>(p.axis);
      return in[0].with(axis, p.before + in[0][axis] + p.after);
    },
    .forward =
        []<class T>(Ctx<T> c, const Padding& p) {
          const AxisView x(c.shape(0), static_cast<int>(p.axis));
          T* y = c.out().data();
          for (Index o = 0; o < x.outer; ++o) {
            y = std::fill_n(y, p.before * x.inner, T(0));
            y = std::copy_n(c.in(0).data() + o * x.size * x.inner, x.size * x.inner, y);
            y = std::fill_n(y, p.after * x.inner, T(0));
          }
        },
    .gradient = rule(
        [](Vjp& v, const Padding& p) {
          const int axis = static_cast<int>(p.axis);
          v.add(0, [&] { return slice(v.g(), axis, p.before, p.before + v.shape()[axis]); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({3, 2})).attr(Padding{0, 1, 2}),
                with_inputs(normal({2, 3, 2})).attr(Padding{1, 0, 1}),
                with_inputs(normal({0, 2})).attr(Padding{0, 2, 0})},
}};

// --- concat and stack ---

struct Along {
  int axis;
};

const Op<Along> concat_op{{
    .name = "concat",
    .arguments = {several("inputs")},
    .shape = [](const Arguments& in, const Along& along) -> Shape {
      Index size = 0;
      for (int i = 0; i < in.count(); ++i) {
        if (in[i].rank() != in[0].rank() || in[i].with(along.axis, 0) != in[0].with(along.axis, 0))
          in.fail(fmt::format("shapes must agree on all axes but {}", along.axis));
        size += in[i][along.axis];
      }
      return in[0].with(along.axis, size);
    },
    .forward =
        []<class T>(Ctx<T> c, const Along& along) {
          const AxisView y(c.out_shape(), along.axis);
          Index begin = 0;
          for (int i = 0; i < c.count(); ++i) {
            const Index run = c.shape(i)[along.axis] * y.inner;
            for (Index o = 0; o < y.outer; ++o)
              copy_run(c.in(i).data() + o * run, run,
                       c.out().data() + o * y.size * y.inner + begin);
            begin += run;
          }
        },
    .gradient = rule(
        [](Vjp& v, const Along& along) {
          Index begin = 0;
          for (int i = 0; i < v.count(); ++i) {
            const Index end = begin + v.shape(i)[along.axis];
            v.add(i, [&] { return slice(v.g(), along.axis, begin, end); });
            begin = end;
          }
        },
        keeps_nothing),
    .samples = {with_inputs(normal({2, 3}), normal({1, 3})).attr(Along{0}),
                with_inputs(normal({2, 1, 2}), normal({2, 3, 2}), normal({2, 0, 2})).attr(Along{1}),
                with_inputs(normal({4})).attr(Along{0})},
}};

const Op<Along> stack_op{{
    .name = "stack",
    .arguments = {several("inputs")},
    .shape = [](const Arguments& in, const Along& along) -> Shape {
      for (int i = 1; i < in.count(); ++i)
        if (in[i] != in[0]) in.fail("the inputs must have one shape");
      if (in[0].rank() == Shape::max_rank) in.fail("a stack would have more than 4 axes");
      return in[0].insert(along.axis, in.count());
    },
    .forward =
        []<class T>(Ctx<T> c, const Along& along) {
          const AxisView y(c.out_shape(), along.axis);
          for (int i = 0; i < c.count(); ++i)
            for (Index o = 0; o < y.outer; ++o)
              copy_run(c.in(i).data() + o * y.inner, y.inner,
                       c.out().data() + (o * y.size + i) * y.inner);
        },
    .gradient = rule(
        [](Vjp& v, const Along& along) {
          for (int i = 0; i < v.count(); ++i)
            v.add(i, [&] { return select(v.g(), along.axis, i); });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({2, 3}), normal({2, 3})).attr(Along{0}),
                with_inputs(normal({2, 3}), normal({2, 3}), normal({2, 3})).attr(Along{2}),
                with_inputs(normal({})).attr(Along{0})},
}};

// --- flip ---

const Op<Along> flip_op{{
    .name = "flip",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c, const Along& along) {
          const AxisView x(c.shape(0), along.axis);
          for (Index o = 0; o < x.outer; ++o)
            for (Index i = 0; i < x.size; ++i)
              copy_run(c.in(0).data() + (o * x.size + i) * x.inner, x.inner,
                       c.out().data() + (o * x.size + x.size - 1 - i) * x.inner);
        },
    .gradient =
        rule([](Vjp& v, const Along& along) { v.add(0, [&] { return flip(v.g(), along.axis); }); },
             keeps_nothing),
    .samples = {with_inputs(normal({5})).attr(Along{0}),
                with_inputs(normal({2, 3, 2})).attr(Along{1}),
                with_inputs(normal({2, 3})).attr(Along{1})},
}};

PoolVector<const Tensor*> pointers(std::span<const Tensor> tensors) {
  PoolVector<const Tensor*> result;
  for (const Tensor& x : tensors) result.push_back(&x);
  return result;
}

int axis_of_first(std::span<const Tensor> inputs, int axis, int extra, const char* op, Site site) {
  if (inputs.empty())
    throw ValueError(fmt::format("{}: there is nothing to join ({})", op, site.str()));
  return normalized_axis(axis, inputs[0].rank() + extra, op, site);
}

}  // namespace

Tensor reshape(const Tensor& x, const Shape& shape, Site site) {
  return reshape_op({&x}, {shape}, site);
}

Tensor reshape(const Tensor& x, std::initializer_list<Index> shape, Site site) {
  PoolVector<Index> known(shape);
  const auto open = std::ranges::find(known, -1);
  if (open != known.end()) {
    Index product = 1;
    for (Index s : known) product *= s == -1 ? 1 : s;
    *open = product > 0 ? x.size() / product : 0;
  }
  return reshape(x, Shape(std::span<const Index>(known)), site);
}

Tensor transpose(const Tensor& x, int axis0, int axis1, Site site) {
  return transpose_op({&x},
                      {normalized_axis(axis0, x.rank(), "transpose", site),
                       normalized_axis(axis1, x.rank(), "transpose", site)},
                      site);
}

Tensor broadcast_to(const Tensor& x, const Shape& shape, Site site) {
  return broadcast_to_op({&x}, {shape}, site);
}

Tensor sum_to(const Tensor& x, const Shape& shape, Site site) {
  return sum_to_op({&x}, {shape}, site);
}

Tensor slice(const Tensor& x, int axis, Index begin, Index end, Site site) {
  axis = normalized_axis(axis, x.rank(), "slice", site);
  const Index size = x.shape()[axis];
  return slice_op({&x}, {axis, begin < 0 ? begin + size : begin, end < 0 ? end + size : end}, site);
}

Tensor select(const Tensor& x, int axis, Index i, Site site) {
  axis = normalized_axis(axis, x.rank(), "select", site);
  const Index at = i < 0 ? i + x.shape()[axis] : i;
  return reshape(slice(x, axis, at, at + 1, site), x.shape().erase(axis), site);
}

Tensor pad(const Tensor& x, int axis, Index before, Index after, Site site) {
  return pad_op({&x}, {normalized_axis(axis, x.rank(), "pad", site), before, after}, site);
}

Tensor concat(std::span<const Tensor> inputs, int axis, Site site) {
  const Along along{axis_of_first(inputs, axis, 0, "concat", site)};
  return run_single(concat_op.spec(), pointers(inputs), &along, site);
}

Tensor stack(std::span<const Tensor> inputs, int axis, Site site) {
  const Along along{axis_of_first(inputs, axis, 1, "stack", site)};
  return run_single(stack_op.spec(), pointers(inputs), &along, site);
}

std::vector<Tensor> split(const Tensor& x, int parts, int axis, Site site) {
  axis = normalized_axis(axis, x.rank(), "split", site);
  const Index size = x.shape()[axis];
  if (parts < 1 || size % parts != 0)
    throw ShapeError(
        fmt::format("split: axis {} of shape {} has {} elements, not a multiple of {} ({})", axis,
                    x.shape().str(), size, parts, site.str()));
  std::vector<Tensor> result;
  for (Index p = 0; p < parts; ++p)
    result.push_back(slice(x, axis, p * (size / parts), (p + 1) * (size / parts), site));
  return result;
}

Tensor flip(const Tensor& x, int axis, Site site) {
  return flip_op({&x}, {normalized_axis(axis, x.rank(), "flip", site)}, site);
}

}  // namespace reel
