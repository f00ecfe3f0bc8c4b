#include <fmt/format.h>

#include <cmath>
#include <limits>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/row_sources.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/check_indices.h>

namespace reel {
using namespace op;
namespace {

// --- gather_rows and scatter_add_rows: each is the other's adjoint ---

REEL_EARLY const Op<> gather_rows_op{{
    .name = "gather_rows",
    .arguments = {"table", integer("rows")},
    .shape = [](const Arguments& in) -> Shape {
      if (in[0].rank() != 2) in.fail("the table must be a matrix");
      if (in[1].rank() == Shape::max_rank) in.fail("rows must have at most 3 axes");
      return in[1].insert(in[1].rank(), in[0][1]);
    },
    .forward =
        []<class T>(Ctx<T> c) {
          const auto rows = c.indices(1);
          check_indices("gather_rows", "row", "rows", rows, c.shape(0)[0]);
          const Index features = c.shape(0)[1];
          T* to = c.out().data();
          for (std::int32_t row : rows)
            to = std::copy_n(c.in(0).data() + row * features, features, to);
        },
    .gradient = rule([](Vjp& v) { v.add_rows(0, v.g(), v.in(1)); }, Keeps::input(1)),
    .samples = {with_inputs(normal({5, 3}), indices({4}, 5)),
                with_inputs(normal({3, 2}), indices({2, 3, 1}, 3)),
                with_inputs(normal({1, 1}), indices({}, 1)),
                with_inputs(normal({4, 3}), indices({0}, 4))},
}};

struct RowCount {
  Index rows;
};

// Row r of the table is the sum of the rows of x that belong to it.
template <class T>
void add_rows(const T* x, std::span<const std::int32_t> rows, const Shape& table, T* y) {
  const Index features = table[1];
  const kernels::RowSources sources(rows, table[0]);
  const Scratch<kernels::Total<T>> total(features);
  for (Index r = 0; r < table[0]; ++r, y += features) {
    const std::span<const Index> own = sources[r];
    kernels::add_columns<T>(
        std::ssize(own), features,
        [x, features, at = own.data()](Index k, Index f) { return x[at[k] * features + f]; },
        total.data());
    for (Index f = 0; f < features; ++f) y[f] = static_cast<T>(total[f]);
  }
}

REEL_EARLY const Op<RowCount> scatter_add_rows_op{{
    .name = "scatter_add_rows",
    .arguments = {"source", integer("rows")},
    .shape = [](const Arguments& in, const RowCount& table) -> Shape {
      const int last = in[0].rank() - 1;
      if (in[0].rank() == 0 || in[0].erase(last) != in[1])
        in.fail("source must have the axes of rows and one of features");
      if (table.rows < 0) in.fail(fmt::format("there cannot be {} rows", table.rows));
      return Shape{table.rows, in[0][last]};
    },
    .forward =
        []<class T>(Ctx<T> c, const RowCount& table) {
          const auto rows = c.indices(1);
          check_indices("scatter_add_rows", "row", "rows", rows, table.rows);
          add_rows(c.in(0).data(), rows, c.out_shape(), c.out().data());
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return gather_rows(v.g(), v.in(1)); }); },
                     Keeps::input(1)),
    .samples = {with_inputs(normal({4, 3}), indices({4}, 5)).attr(RowCount{5}),
                with_inputs(normal({2, 3, 2}), indices({2, 3}, 3)).attr(RowCount{3}),
                with_inputs(normal({2}), indices({}, 2)).attr(RowCount{2}),
                with_inputs(normal({0, 3}), indices({0}, 4)).attr(RowCount{4})},
}};

// --- one_hot ---

struct Classes {
  Index count;
};

REEL_EARLY const Op<Classes> one_hot_op{{
    .name = "one_hot",
    .arguments = {integer("indices")},
    .shape = [](const Arguments& in, const Classes& classes) -> Shape {
      if (in[0].rank() == Shape::max_rank) in.fail("indices must have at most 3 axes");
      if (classes.count < 0) in.fail(fmt::format("there cannot be {} classes", classes.count));
      return in[0].insert(in[0].rank(), classes.count);
    },
    .forward =
        [](Ctx<std::int32_t> c, const Classes& classes) {
          const auto indices = c.indices(0);
          check_indices("one_hot", "index", "classes", indices, classes.count);
          std::ranges::fill(c.out(), 0);
          std::int32_t* row = c.out().data();
          for (std::size_t i = 0; i < indices.size(); ++i, row += classes.count)
            row[indices[i]] = 1;
        },
    .gradient = none("integers have no gradient"),
    .samples = {with_inputs(indices({4}, 3)).attr(Classes{3}),
                with_inputs(indices({2, 1, 5}, 1)).attr(Classes{1}),
                with_inputs(indices({}, 7)).attr(Classes{7}),
                with_inputs(indices({0}, 7)).attr(Classes{7})},
}};

// --- masked_fill ---

struct Filling {
  double value;
};

REEL_EARLY const Op<Filling> masked_fill_op{{
    .name = "masked_fill",
    .arguments = {"x", integer("mask")},
    .shape = [](const Arguments& in, const Filling& filling) -> Shape {
      if (broadcast_shape(in) != in[0]) in.fail("the mask must broadcast to the shape of x");
      if (in.dtype(0) == i32 && !(filling.value == std::nearbyint(filling.value) &&
                                  std::abs(filling.value) <= std::numeric_limits<int>::max()))
        in.fail<ValueError>(fmt::format("{} is not an i32", filling.value));
      return in[0];
    },
    .forward =
        []<class T>(Ctx<T> c, const Filling& filling) {
          const T* x = c.in(0).data();
          const std::int32_t* mask = c.indices(1).data();
          T* y = c.out().data();
          const T value = static_cast<T>(filling.value);
          const kernels::BroadcastPlan<1> plan(c.out_shape(), {&c.shape(1)});
          plan.each_row([&](const auto& offset, Index n, const auto& stride) {
            kernels::with_runs(
                [&](auto masked) {
                  for (Index i = 0; i < n; ++i) y[i] = masked[i] ? value : x[i];
                },
                mask + offset[0], stride[0]);
            x += n;
            y += n;
          });
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return masked_fill(v.g(), v.in(1), 0); }); },
                     Keeps::input(1)),
    .samples = {with_inputs(normal({3, 4}), indices({3, 4}, 2)).attr(Filling{-2}),
                with_inputs(normal({2, 3, 4}), indices({3, 1}, 2)).attr(Filling{0}),
                with_inputs(normal({5}), indices({}, 2)).attr(Filling{7}),
                with_inputs(normal({}), indices({}, 2)).attr(Filling{1}),
                with_inputs(normal({0, 3}), indices({3}, 2)).attr(Filling{1})},
}};

}  // namespace

Tensor gather_rows(const Tensor& table, const Tensor& rows, Site site) {
  return gather_rows_op({&table, &rows}, site);
}

Tensor scatter_add_rows(const Tensor& source, const Tensor& rows, Arg<Index> row_count, Site site) {
  return scatter_add_rows_op({&source, &rows}, {row_count}, site);
}

Tensor one_hot(const Tensor& indices, Arg<Index> classes, DType dtype, Site site) {
  return one_hot_op({&indices}, {classes}, site).to(dtype);
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, Arg<double> value, Site site) {
  return masked_fill_op({&x, &mask}, {value}, site);
}

}  // namespace reel

namespace reel::op::linked {
void index() {}
}  // namespace reel::op::linked
