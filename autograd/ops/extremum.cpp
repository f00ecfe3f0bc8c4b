#include <fmt/format.h>

#include <limits>

#include <reel/autograd/ops/lines.h>
#include <reel/autograd/ops/reduction.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;

// --- max and min ---

// The gradient is split equally among the elements equal to the result, and 0 elsewhere, or NaN if
// no element is, because the result is NaN.
constexpr auto extremum_gradient = [](Vjp& v, const Reduction& r) {
  const Tensor one = scalar(1, v.g().dtype()), zero = scalar(0, one.dtype());
  const Tensor hits = equal(v.in().detach(), restored(v.out().detach(), v.shape(), r));
  const Tensor count = sum_to(where(hits, one, zero), reduced(v.shape(), r));
  v.add(0, [&] { return where(hits, restored(v.g(), v.shape(), r) / count, zero / count); });
};

REEL_EARLY const Samples<Reduction> extremum_samples{
    with_inputs(distinct({3, 4})).attr(Reduction{3, false}),
    with_inputs(distinct({3, 4})).attr(Reduction{2, true}),
    with_inputs(distinct({2, 3, 4})).attr(Reduction{5, false}),
    with_inputs(distinct({17, 1})).attr(Reduction{2, false}),
    with_inputs(distinct({})).attr(Reduction{0, false}),
    with_inputs(distinct({0, 4})).attr(Reduction{2, false}),
};

template <class T>
constexpr T highest = std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity()
                                                           : std::numeric_limits<T>::max();
template <class T>
constexpr T lowest = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                          : std::numeric_limits<T>::lowest();

REEL_EARLY const Op<Reduction> max_op{{
    .name = "max",
    .arguments = {"x"},
    .shape = nonempty_reduction,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          fold(c, r, c.out(), lowest<T>, [](T y, T x) { return x > y || x != x ? x : y; });
        },
    .gradient = rule(extremum_gradient, keeps_all),
    .samples = extremum_samples,
}};

REEL_EARLY const Op<Reduction> min_op{{
    .name = "min",
    .arguments = {"x"},
    .shape = nonempty_reduction,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          fold(c, r, c.out(), highest<T>, [](T y, T x) { return x < y || x != x ? x : y; });
        },
    .gradient = rule(extremum_gradient, keeps_all),
    .samples = extremum_samples,
}};

// --- argmax and argmin ---

struct Search {
  int axis;
  bool keepdims;
};

constexpr auto search_shape = [](const Arguments& in, const Search& search) -> OutputShape {
  if (in[0][search.axis] == 0) in.fail(fmt::format("axis {} is empty", search.axis));
  return integer(search.keepdims ? in[0].with(search.axis, 1) : in[0].erase(search.axis));
};

// Writes the index along the axis of the first extremal element; NaN beats all numbers.
template <class T, class F>
void search_lines(Ctx<T> c, int axis, F beats) {
  const Index size = c.shape(0)[axis], stride = c.shape(0).stride(axis);
  each_line(c.shape(0), axis, [&](Index first, Index line) {
    const T* x = c.in(0).data() + first;
    Index best = 0;
    for (Index i = 1; i < size; ++i) {
      const T champion = x[best * stride], challenger = x[i * stride];
      if (champion == champion && (challenger != challenger || beats(challenger, champion)))
        best = i;
    }
    c.integer_out()[static_cast<std::size_t>(line)] = static_cast<std::int32_t>(best);
  });
}

constexpr auto position = none("the position of an element is a step");

REEL_EARLY const Samples<Search> search_samples{
    with_inputs(distinct({3, 4})).attr(Search{1, false}),
    with_inputs(distinct({2, 3, 4})).attr(Search{1, true}),
    with_inputs(distinct({17})).attr(Search{0, false}),
    with_inputs(distinct({3, 1})).attr(Search{1, false}),
    with_inputs(values({1, 3, 3, 0, 0})).attr(Search{0, true}),
    with_inputs(distinct({0, 3})).attr(Search{1, false}),
};

REEL_EARLY const Op<Search> argmax_op{{
    .name = "argmax",
    .arguments = {"x"},
    .shape = search_shape,
    .forward =
        []<class T>(Ctx<T> c, const Search& search) {
          search_lines(c, search.axis, [](T a, T b) { return a > b; });
        },
    .gradient = position,
    .samples = search_samples,
}};

REEL_EARLY const Op<Search> argmin_op{{
    .name = "argmin",
    .arguments = {"x"},
    .shape = search_shape,
    .forward =
        []<class T>(Ctx<T> c, const Search& search) {
          search_lines(c, search.axis, [](T a, T b) { return a < b; });
        },
    .gradient = position,
    .samples = search_samples,
}};

// --- any and all ---

constexpr auto truth = none("a truth value has no slope");
constexpr auto truth_shape = [](const Arguments& in, const Reduction& r) {
  return integer(any_reduction(in, r));
};

REEL_EARLY const Samples<Reduction> truth_samples{
    with_inputs(values({0, 2, 0})).attr(Reduction{1, false}),
    with_inputs(values({0, 0})).attr(Reduction{1, true}),
    with_inputs(away_from_zero({2, 3, 17})).attr(Reduction{5, false}),
    with_inputs(away_from_zero({})).attr(Reduction{0, false}),
    with_inputs(normal({2, 0})).attr(Reduction{2, false}),
};

REEL_EARLY const Op<Reduction> any_op{{
    .name = "any",
    .arguments = {"x"},
    .shape = truth_shape,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          fold(c, r, c.integer_out(), 0, [](std::int32_t y, T x) { return y | (x != 0); });
        },
    .gradient = truth,
    .samples = truth_samples,
}};

REEL_EARLY const Op<Reduction> all_op{{
    .name = "all",
    .arguments = {"x"},
    .shape = truth_shape,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          fold(c, r, c.integer_out(), 1, [](std::int32_t y, T x) { return y & (x != 0); });
        },
    .gradient = truth,
    .samples = truth_samples,
}};

}  // namespace

Tensor max(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return max_op({&x}, reduction(x, axes, keepdims, "max", site), site);
}

Tensor min(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return min_op({&x}, reduction(x, axes, keepdims, "min", site), site);
}

Tensor argmax(const Tensor& x, Arg<int> axis, Arg<bool> keepdims, Site site) {
  return argmax_op({&x}, {axis_of(x, axis, "argmax", site), keepdims}, site);
}

Tensor argmin(const Tensor& x, Arg<int> axis, Arg<bool> keepdims, Site site) {
  return argmin_op({&x}, {axis_of(x, axis, "argmin", site), keepdims}, site);
}

Tensor any(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return any_op({&x}, reduction(x, axes, keepdims, "any", site), site);
}

Tensor all(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return all_op({&x}, reduction(x, axes, keepdims, "all", site), site);
}

}  // namespace reel

namespace reel::op::linked {
void extremum() {}
}  // namespace reel::op::linked
