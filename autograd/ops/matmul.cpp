#include <reel/autograd/kernels/matmul.h>

#include <fmt/format.h>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/engine/packed_factors.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/rows.h>
#include <reel/autograd/precision.h>

namespace reel {
using namespace op;
namespace {

template <class T>
kernels::MatrixView<T> view(const T* numbers, Index rows, Index columns, bool transpose) {
  const auto matrix = kernels::MatrixView<T>::row_major(numbers, rows, columns);
  return transpose ? matrix.transposed() : matrix;
}

// All axes but the last `count`.
Shape leading(const Shape& shape, int count) {
  return Shape(std::span(shape.begin(), static_cast<std::size_t>(shape.rank() - count)));
}

// x as a matrix, its leading axes merged into rows.
Tensor rows_of(const Tensor& x) {
  return x.rank() == 2 ? x : reshape(x, Shape{leading(x.shape(), 1).size(), x.size(-1)});
}

// C = start + A B, with a factor B that may be kept in packed form. One or two rows read an
// unpacked B faster, unless that is a transpose.
template <class T>
void product(const kernels::MatrixView<T>& a, const kernels::MatrixView<T>& b, const T* start,
             Index start_stride, T* c, Index ldc) {
  const bool in_place = a.rows <= 2 && b.col_stride == 1;
  if (const auto* packed = in_place ? nullptr : PackedFactors::find(b))
    kernels::matmul(a, *packed, start, start_stride, c, ldc);
  else
    kernels::matmul(a, b, start, start_stride, c, ldc);
}

// --- matmul ---

struct Transposes {
  bool a, b;
};

Shape broadcast_leading(const Arguments& in) {
  try {
    return broadcast(leading(in[0], 2), leading(in[1], 2));
  } catch (const ShapeError& e) {
    in.fail(fmt::format("leading axes: {}", e.message()));
  }
}

// Whether the rows of all matrices of a are the rows of a single product.
bool merges_rows(const Shape& b, const Transposes& t) { return b.rank() == 2 && !t.a; }

// Which matrix of a and which of b make up a product.
struct Factors {
  Index a, b;
};

// Those of all products, in row-major order of the leading axes.
PoolVector<Factors> factors(const Shape& batch, const Shape& a, const Shape& b) {
  PoolVector<Factors> all;
  const kernels::BroadcastPlan<2> plan(batch, {&a, &b});
  plan.each_row([&](const auto& offset, Index n, const auto& stride) {
    for (Index i = 0; i < n; ++i)
      all.push_back({offset[0] + i * stride[0], offset[1] + i * stride[1]});
  });
  return all;
}

template <class T>
void multiply(Ctx<T> c, const Transposes& t) {
  const Shape &a = c.shape(0), &b = c.shape(1), &out = c.out_shape();
  const Index a_rows = a[a.rank() - 2], a_columns = a[a.rank() - 1];
  const Index b_rows = b[b.rank() - 2], b_columns = b[b.rank() - 1];
  const Index rows = out[out.rank() - 2], columns = out[out.rank() - 1];
  const T *x = c.in(0).data(), *y = c.in(1).data();
  T* z = c.out().data();
  if (merges_rows(b, t)) {
    return product<T>(view(x, leading(a, 1).size(), a_columns, false),
                      view(y, b_rows, b_columns, t.b), nullptr, columns, z, columns);
  }
  const PoolVector<Factors> products = factors(leading(out, 2), leading(a, 2), leading(b, 2));
  const auto multiply_one = [&](Index i) {
    const Factors& at = products[static_cast<std::size_t>(i)];
    kernels::matmul(view(x + at.a * a_rows * a_columns, a_rows, a_columns, t.a),
                    view(y + at.b * b_rows * b_columns, b_rows, b_columns, t.b),
                    z + i * rows * columns, columns, kernels::Write::assign);
  };
  // Small products are the tasks of the threads; a large one is split by itself.
  constexpr Index enough = kernels::product_worth_a_fork;
  const Index count = std::ssize(products), cost = rows * columns * (t.a ? a_rows : a_columns);
  if (cost < 2 * enough) return spread(count, cost, 2 * enough, multiply_one);
  for (Index i = 0; i < count; ++i) multiply_one(i);
}

REEL_EARLY const Op<Transposes> matmul_op{{
    .name = "matmul",
    .arguments = {"a", "b"},
    .shape = [](const Arguments& in, const Transposes& t) -> Shape {
      if (in[0].rank() < 2 || in[1].rank() < 2)
        in.fail("both must be matrices, perhaps with leading axes; dot() and outer() take vectors");
      const Shape a(std::span(in[0].end() - 2, 2)), b(std::span(in[1].end() - 2, 2));
      const Index rows = a[t.a ? 1 : 0], inner_a = a[t.a ? 0 : 1];
      const Index inner_b = b[t.b ? 1 : 0], columns = b[t.b ? 0 : 1];
      if (inner_a != inner_b)
        in.fail(fmt::format("the inner sizes {} of a{} and {} of b{} differ", inner_a,
                            t.a ? " transposed" : "", inner_b, t.b ? " transposed" : ""));
      const Shape batch = broadcast_leading(in);
      return batch.insert(batch.rank(), rows).insert(batch.rank() + 1, columns);
    },
    .forward = []<Real T>(Ctx<T> c, const Transposes& t) { multiply(c, t); },
    .gradient = rule(
        [](Vjp& v, const Transposes& t) {
          v.add(0, [&] {
            return t.a ? matmul(v.in(1), v.g(), t.b, true) : matmul(v.g(), v.in(1), false, !t.b);
          });
          if (v.needs(1) && merges_rows(v.shape(1), t)) {
            const Tensor a = rows_of(v.in(0)), g = rows_of(v.g());
            return t.b ? v.add_product(1, g, a) : v.add_product(1, a, g);
          }
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
                with_inputs(normal({3, 3}), normal({3, 3})).attr(Transposes{false, false}),
                with_inputs(normal({2, 3, 4}), normal({4, 2})).attr(Transposes{false, false}),
                with_inputs(normal({2, 1, 3, 4}), normal({2, 4})).attr(Transposes{false, true}),
                with_inputs(normal({2, 4, 3}), normal({4, 2})).attr(Transposes{true, false}),
                with_inputs(normal({3, 4}), normal({2, 4, 2})).attr(Transposes{false, false}),
                with_inputs(normal({2, 3, 2}), normal({2, 2, 3})).attr(Transposes{false, false}),
                with_inputs(normal({2, 1, 4, 3}), normal({3, 2, 4})).attr(Transposes{true, true}),
                with_inputs(normal({2, 2, 2}), normal({2, 2, 2})).attr(Transposes{true, false}),
                with_inputs(normal({3, 2, 0}), normal({0, 2})).attr(Transposes{false, false}),
                with_inputs(normal({0, 2, 3}), normal({1, 3, 2})).attr(Transposes{false, false})},
}};

// --- affine ---

REEL_EARLY const Op<> affine_op{{
    .name = "affine",
    .arguments = {"x", "w", "b"},
    .shape = [](const Arguments& in) -> Shape {
      const Shape &x = in[0], &w = in[1], &b = in[2];
      if (x.rank() < 2 || w.rank() != 2 || b.rank() != 1)
        in.fail("x must have axes of rows and of features, w be a matrix and b a vector");
      const Index features = x[x.rank() - 1];
      if (features != w[1])
        in.fail(fmt::format("x has {} features, but w takes {}", features, w[1]));
      if (w[0] != b[0]) in.fail(fmt::format("w gives {} features, but b has {}", w[0], b[0]));
      return x.with(x.rank() - 1, w[0]);
    },
    .forward =
        []<Real T>(Ctx<T> c) {
          const Index rows = leading(c.shape(0), 1).size(), columns = c.shape(2)[0];
          const Index features = c.shape(1)[1];
          product<T>(view(c.in(0).data(), rows, features, false),
                     view(c.in(1).data(), columns, features, true), c.in(2).data(), 0,
                     c.out().data(), columns);
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return matmul(v.g(), v.in(1)); });
          if (v.needs(1)) v.add_product(1, rows_of(v.g()), rows_of(v.in(0)));
          v.add(2, [&] { return sum(rows_of(v.g()), 0); });
        },
        Keeps::input(0) | Keeps::input(1)),
    .samples = {with_inputs(normal({3, 4}), normal({2, 4}), normal({2})),
                with_inputs(normal({1, 1}), normal({17, 1}), normal({17})),
                with_inputs(normal({2, 3, 2}), normal({3, 2}), normal({3})),
                with_inputs(normal({2, 3, 0}), normal({2, 0}), normal({2})),
                with_inputs(normal({0, 2}), normal({3, 2}), normal({3}))},
}};

// --- vectors ---

REEL_EARLY const Op<> outer_op{{
    .name = "outer",
    .arguments = {"a", "b"},
    .shape = [](const Arguments& in) -> Shape {
      if (in[0].rank() != 1 || in[1].rank() != 1) in.fail("both must be vectors");
      return Shape{in[0][0], in[1][0]};
    },
    .forward =
        []<class T>(Ctx<T> c) {
          T* row = c.out().data();
          const Index columns = c.shape(1)[0];
          for (const T a : c.in(0)) {
            for (Index j = 0; j < columns; ++j)
              row[j] =
                  static_cast<T>(Modular<T>(a) * Modular<T>(c.in(1)[static_cast<std::size_t>(j)]));
            row += columns;
          }
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return sum(v.g() * v.in(1), 1); });
          v.add(1, [&] { return sum(v.g() * reshape(v.in(0), {v.shape(0)[0], 1}), 0); });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3}), normal({4})), with_inputs(normal({17}), normal({1})),
                with_inputs(normal({3}), normal({3})), with_inputs(normal({0}), normal({2}))},
}};

REEL_EARLY const Op<> dot_op{{
    .name = "dot",
    .arguments = {"a", "b"},
    .shape = [](const Arguments& in) -> Shape {
      if (in[0].rank() != 1 || in[1].rank() != 1) in.fail("both must be vectors");
      if (in[0] != in[1]) in.fail("the vectors differ in length");
      return Shape{};
    },
    .forward =
        []<Real T>(Ctx<T> c) {
          const Index n = c.shape(0)[0];
          const PrecisionScope unrounded(Precision::f32);  // norms and losses are made of it
          kernels::matmul(view(c.in(0).data(), 1, n, false), view(c.in(1).data(), n, 1, false),
                          c.out().data(), 1, kernels::Write::assign);
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g() * v.in(1); });
          v.add(1, [&] { return v.g() * v.in(0); });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3}), normal({3})), with_inputs(normal({17}), normal({17})),
                with_inputs(normal({1}), normal({1})), with_inputs(normal({0}), normal({0}))},
}};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, Arg<bool> transpose_a, Arg<bool> transpose_b,
              Site site) {
  if (!transpose_a) PackedFactors::expect(b, transpose_b);
  return matmul_op({&a, &b}, {transpose_a, transpose_b}, site);
}

Tensor affine(const Tensor& x, const Tensor& w, const Tensor& b, Site site) {
  PackedFactors::expect(w, true);
  return affine_op({&x, &w, &b}, site);
}

Tensor outer(const Tensor& a, const Tensor& b, Site site) { return outer_op({&a, &b}, site); }
Tensor dot(const Tensor& a, const Tensor& b, Site site) { return dot_op({&a, &b}, site); }

}  // namespace reel

namespace reel::op::linked {
void matmul() {}
}  // namespace reel::op::linked
