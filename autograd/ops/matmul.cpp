#include <reel/autograd/kernels/matmul.h>

#include <fmt/format.h>

#include <reel/autograd/op.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

struct Transposes {
  bool a, b;
};

template <class T>
kernels::MatrixView<T> view(std::span<const T> numbers, const Shape& shape, bool transpose) {
  const auto matrix = kernels::MatrixView<T>::row_major(numbers.data(), shape[0], shape[1]);
  return transpose ? matrix.transposed() : matrix;
}

const Op<Transposes> matmul_op{{
    .name = "matmul",
    .arguments = {"a", "b"},
    .shape = [](const Arguments& in, const Transposes& t) -> Shape {
      if (in[0].rank() != 2 || in[1].rank() != 2)
        in.fail("both must be matrices (only a, not transposed, may have leading axes)");
      const Index rows = in[0][t.a ? 1 : 0], inner_a = in[0][t.a ? 0 : 1];
      const Index inner_b = in[1][t.b ? 1 : 0], columns = in[1][t.b ? 0 : 1];
      if (inner_a != inner_b)
        in.fail(fmt::format("the inner sizes {} of a{} and {} of b{} differ", inner_a,
                            t.a ? " transposed" : "", inner_b, t.b ? " transposed" : ""));
      return Shape{rows, columns};
    },
    .forward =
        []<Real T>(Ctx<T> c, const Transposes& t) {
          kernels::matmul(view(c.in(0), c.shape(0), t.a), view(c.in(1), c.shape(1), t.b),
                          c.out().data(), c.out_shape()[1], kernels::Write::assign);
        },
    .gradient = rule(
        [](Vjp& v, const Transposes& t) {
          v.add(0, [&] {
            return t.a ? matmul(v.in(1), v.g(), t.b, true) : matmul(v.g(), v.in(1), false, !t.b);
          });
          v.add(1, [&] {
            return t.b ? matmul(v.g(), v.in(0), true, t.a) : matmul(v.in(0), v.g(), !t.a, false);
          });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3, 4}), normal({4, 2})).attr(Transposes{false, false}),
                with_inputs(normal({4, 3}), normal({4, 2})).attr(Transposes{true, false}),
                with_inputs(normal({3, 4}), normal({2, 4})).attr(Transposes{false, true}),
                with_inputs(normal({4, 3}), normal({2, 4})).attr(Transposes{true, true}),
                with_inputs(normal({1, 1}), normal({1, 17})).attr(Transposes{false, false}),
                with_inputs(normal({7, 19}), normal({19, 33})).attr(Transposes{false, false}),
                with_inputs(normal({2, 0}), normal({0, 3})).attr(Transposes{false, false}),
                with_inputs(normal({3, 3}), normal({3, 3})).attr(Transposes{false, false})},
}};

const Op<> affine_op{{
    .name = "affine",
    .arguments = {"x", "w", "b"},
    .shape = [](const Arguments& in) -> Shape {
      if (in[0].rank() != 2 || in[1].rank() != 2 || in[2].rank() != 1)
        in.fail("x must have an axis of features, w be a matrix and b a vector");
      if (in[0][1] != in[1][1])
        in.fail(fmt::format("x has {} features, but w takes {}", in[0][1], in[1][1]));
      if (in[1][0] != in[2][0])
        in.fail(fmt::format("w gives {} features, but b has {}", in[1][0], in[2][0]));
      return Shape{in[0][0], in[1][0]};
    },
    .forward =
        []<Real T>(Ctx<T> c) {
          const Index rows = c.out_shape()[0], columns = c.out_shape()[1];
          for (Index r = 0; r < rows; ++r) std::ranges::copy(c.in(2), c.out().data() + r * columns);
          kernels::matmul(view(c.in(0), c.shape(0), false), view(c.in(1), c.shape(1), true),
                          c.out().data(), columns, kernels::Write::add);
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return matmul(v.g(), v.in(1)); });
          v.add(1, [&] { return matmul(v.g(), v.in(0), true, false); });
          v.add(2, [&] { return sum(v.g(), 0); });
        },
        Keeps::input(0) | Keeps::input(1)),
    .samples = {with_inputs(normal({3, 4}), normal({2, 4}), normal({2})),
                with_inputs(normal({1, 1}), normal({17, 1}), normal({17})),
                with_inputs(normal({0, 2}), normal({3, 2}), normal({3}))},
}};

// Calls f with the leading axes of x merged to rows, and gives its result their shape back.
template <class F>
Tensor over_rows(const Tensor& x, Site site, F f) {
  if (x.rank() <= 2) return f(x);
  const Index features = x.size(-1);
  const Tensor rows = reshape(x, Shape{features == 0 ? 0 : x.size() / features, features}, site);
  const Tensor y = f(rows);
  return reshape(y, x.shape().with(x.rank() - 1, y.size(-1)), site);
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b, Site site) {
  const auto product = [&](const Tensor& rows) {
    return matmul_op({&rows, &b}, {transpose_a, transpose_b}, site);
  };
  return b.rank() == 2 && !transpose_a ? over_rows(a, site, product) : product(a);
}

Tensor affine(const Tensor& x, const Tensor& w, const Tensor& b, Site site) {
  return over_rows(x, site, [&](const Tensor& rows) { return affine_op({&rows, &w, &b}, site); });
}

}  // namespace reel
