#include <fmt/format.h>

#include <reel/autograd/op.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

struct RowCount {
  Index rows;
};

// Throws before any row is touched.
void check_rows(const char* op, std::span<const std::int32_t> rows, Index count) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (rows[i] < 0 || rows[i] >= count)
      throw ValueError(fmt::format("{}: row {} at position {} is not among the {} rows (0 to {})",
                                   op, rows[i], i, count, count - 1));
}

const Op<> gather_rows_op{{
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
          check_rows("gather_rows", rows, c.shape(0)[0]);
          const Index features = c.shape(0)[1];
          T* to = c.out().data();
          for (std::int32_t row : rows)
            to = std::copy_n(c.in(0).data() + row * features, features, to);
        },
    .gradient = rule(
        [](Vjp& v) { v.add(0, [&] { return scatter_add_rows(v.g(), v.in(1), v.shape(0)[0]); }); },
        Keeps::input(1)),
    .samples = {with_inputs(normal({5, 3}), indices({4}, 5)),
                with_inputs(normal({3, 2}), indices({2, 3, 1}, 3)),
                with_inputs(normal({1, 1}), indices({}, 1)),
                with_inputs(normal({4, 3}), indices({0}, 4))},
}};

const Op<RowCount> scatter_add_rows_op{{
    .name = "scatter_add_rows",
    .arguments = {"source", integer("rows")},
    .shape = [](const Arguments& in, const RowCount& table) -> Shape {
      const int last = in[0].rank() - 1;
      if (in[0].rank() == 0 || in[0].erase(last) != in[1])
        in.fail("source must have the axes of rows and one of features");
      return Shape{table.rows, in[0][last]};
    },
    .forward =
        []<class T>(Ctx<T> c, const RowCount& table) {
          const auto rows = c.indices(1);
          check_rows("scatter_add_rows", rows, table.rows);
          const Index features = c.out_shape()[1];
          std::ranges::fill(c.out(), T(0));
          const T* from = c.in(0).data();
          for (std::int32_t row : rows) {
            T* to = c.out().data() + row * features;
            for (Index f = 0; f < features; ++f) to[f] += from[f];
            from += features;
          }
        },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return gather_rows(v.g(), v.in(1)); }); },
                     Keeps::input(1)),
    .samples = {with_inputs(normal({4, 3}), indices({4}, 5)).attr(RowCount{5}),
                with_inputs(normal({2, 3, 2}), indices({2, 3}, 3)).attr(RowCount{3}),
                with_inputs(normal({2}), indices({}, 2)).attr(RowCount{2}),
                with_inputs(normal({0, 3}), indices({0}, 4)).attr(RowCount{4})},
}};

}  // namespace

Tensor gather_rows(const Tensor& table, const Tensor& rows, Site site) {
  return gather_rows_op({&table, &rows}, site);
}

Tensor scatter_add_rows(const Tensor& source, const Tensor& rows, Index row_count, Site site) {
  return scatter_add_rows_op({&source, &rows}, {row_count}, site);
}

}  // namespace reel
