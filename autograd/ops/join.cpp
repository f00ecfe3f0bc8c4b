#include <fmt/format.h>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/axis.h>

namespace reel {
using namespace op;
namespace {

// --- concat and stack ---

REEL_EARLY const Op<Along> concat_op{{
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
              std::copy_n(c.in(i).data() + o * run, run,
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

REEL_EARLY const Op<Along> stack_op{{
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
              std::copy_n(c.in(i).data() + o * y.inner, y.inner,
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

// --- repeat ---

struct Repetition {
  std::int64_t axis;
  Index count;
};

REEL_EARLY const Op<Repetition> repeat_op{{
    .name = "repeat",
    .arguments = {"x"},
    .shape = [](const Arguments& in, const Repetition& r) -> Shape {
      const int axis = static_cast<int>(r.axis);
      if (r.count < 0) in.fail(fmt::format("the count must not be negative, as {} is", r.count));
      if (r.count > Shape::max_size / std::max<Index>(in[0][axis], 1))
        in.fail("the result would have too many elements");
      return in[0].with(axis, in[0][axis] * r.count);
    },
    .forward =
        []<class T>(Ctx<T> c, const Repetition& r) {
          const AxisView x(c.shape(0), static_cast<int>(r.axis));
          const T* from = c.in(0).data();
          T* y = c.out().data();
          for (Index i = 0; i < x.outer * x.size; ++i, from += x.inner)
            for (Index copy = 0; copy < r.count; ++copy) y = std::copy_n(from, x.inner, y);
        },
    .gradient = rule(
        [](Vjp& v, const Repetition& r) {
          v.add(0, [&] {
            const AxisView x(v.shape(), static_cast<int>(r.axis));
            const Shape copies{x.outer * x.size, r.count, x.inner};
            return reshape(sum_to(reshape(v.g(), copies), copies.with(1, 1)), v.shape());
          });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({3, 2})).attr(Repetition{0, 2}),
                with_inputs(normal({2, 1, 3, 2})).attr(Repetition{2, 3}),
                with_inputs(normal({5})).attr(Repetition{0, 1}),
                with_inputs(normal({2, 3})).attr(Repetition{1, 0}),
                with_inputs(normal({2, 0})).attr(Repetition{0, 2})},
}};

PoolVector<const Tensor*> pointers(std::span<const Tensor> tensors) {
  PoolVector<const Tensor*> result;
  for (const Tensor& x : tensors) result.push_back(&x);
  return result;
}

int axis_of_first(std::span<const Tensor> inputs, int axis, int extra, const char* op, Site site) {
  if (inputs.empty())
    throw ValueError(
        fmt::format("{}: inputs is empty; there is nothing to join and no dtype to join it in", op),
        site);
  return axis_of(inputs[0], axis, op, site, extra);
}

}  // namespace

Tensor concat(std::span<const Tensor> inputs, Arg<int> axis, Site site) {
  const Along along{axis_of_first(inputs, axis, 0, "concat", site)};
  return run_single(concat_op.spec(), pointers(inputs), &along, site);
}

Tensor stack(std::span<const Tensor> inputs, Arg<int> axis, Site site) {
  const Along along{axis_of_first(inputs, axis, 1, "stack", site)};
  return run_single(stack_op.spec(), pointers(inputs), &along, site);
}

Tensor repeat(const Tensor& x, Arg<Index> count, Arg<int> axis, Site site) {
  return repeat_op({&x}, {axis_of(x, axis, "repeat", site), count}, site);
}

}  // namespace reel

namespace reel::op::linked {
void join() {}
}  // namespace reel::op::linked
