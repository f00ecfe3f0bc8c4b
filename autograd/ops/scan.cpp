#include <fmt/format.h>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/lines.h>

namespace reel {
using namespace op;
namespace {

using detail::each_line;

// --- cumsum ---

struct Scan {
  int axis;
  bool reverse;
};

const Op<Scan> cumsum_op{{
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
            Modular<T> sum = 0;
            for (Index i = 0; i < size; ++i, at += step)
              y[at] = static_cast<T>(sum += static_cast<Modular<T>>(x[at]));
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

// --- argmax and argmin ---

struct Search {
  int axis;
  bool keepdims;
};

constexpr auto search_shape = [](const Arguments& in, const Search& search) -> Shape {
  if (in[0][search.axis] == 0) in.fail(fmt::format("axis {} is empty", search.axis));
  return search.keepdims ? in[0].with(search.axis, 1) : in[0].erase(search.axis);
};

// Writes where along the axis the first element is that none other beats; NaN beats all numbers.
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

const auto position = none("the position of an element is a step");

const Samples<Search> search_samples{
    with_inputs(distinct({3, 4})).attr(Search{1, false}),
    with_inputs(distinct({2, 3, 4})).attr(Search{1, true}),
    with_inputs(distinct({17})).attr(Search{0, false}),
    with_inputs(distinct({3, 1})).attr(Search{1, false}),
    with_inputs(values({1, 3, 3, 0, 0})).attr(Search{0, true}),
    with_inputs(distinct({0, 3})).attr(Search{1, false}),
};

const Op<Search> argmax_op{{
    .name = "argmax",
    .arguments = {"x"},
    .shape = search_shape,
    .forward =
        []<class T>(Ctx<T> c, const Search& search) {
          search_lines(c, search.axis, [](T a, T b) { return a > b; });
        },
    .gradient = position,
    .samples = search_samples,
    .integer_output = true,
}};

const Op<Search> argmin_op{{
    .name = "argmin",
    .arguments = {"x"},
    .shape = search_shape,
    .forward =
        []<class T>(Ctx<T> c, const Search& search) {
          search_lines(c, search.axis, [](T a, T b) { return a < b; });
        },
    .gradient = position,
    .samples = search_samples,
    .integer_output = true,
}};

}  // namespace

Tensor cumsum(const Tensor& x, int axis, bool reverse, Site site) {
  return cumsum_op({&x}, {normalized_axis(axis, x.rank(), "cumsum", site), reverse}, site);
}

Tensor argmax(const Tensor& x, int axis, bool keepdims, Site site) {
  return argmax_op({&x}, {normalized_axis(axis, x.rank(), "argmax", site), keepdims}, site);
}

Tensor argmin(const Tensor& x, int axis, bool keepdims, Site site) {
  return argmin_op({&x}, {normalized_axis(axis, x.rank(), "argmin", site), keepdims}, site);
}

}  // namespace reel
