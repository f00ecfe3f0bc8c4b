#include <algorithm>

#include "references.h"

namespace reel::testing {
namespace {

struct Transposes {
  bool a, b;
};

Shape without_last(const Shape& shape, int count) {
  return Shape(std::span(shape.begin(), static_cast<std::size_t>(shape.rank() - count)));
}

// One element at a time: a row and a column of the matrices at that place.
Arrays matmul(const Arrays& in, const Transposes& t) {
  const Shape &a = in[0].shape, &b = in[1].shape;
  const Index a_rows = a[a.rank() - 2], a_columns = a[a.rank() - 1];
  const Index b_rows = b[b.rank() - 2], b_columns = b[b.rank() - 1];
  const Index rows = t.a ? a_columns : a_rows, inner = t.a ? a_rows : a_columns;
  const Index columns = t.b ? b_rows : b_columns;
  const Shape a_batch = without_last(a, 2), b_batch = without_last(b, 2);
  const Shape batch = broadcast(a_batch, b_batch);
  Array y(batch.insert(batch.rank(), rows).insert(batch.rank() + 1, columns));
  each_place(batch, [&](const Place& place, Index matrix) {
    const Index at_a = broadcast_position(a_batch, batch, place) * a_rows * a_columns;
    const Index at_b = broadcast_position(b_batch, batch, place) * b_rows * b_columns;
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j)
        for (Index k = 0; k < inner; ++k)
          y[(matrix * rows + i) * columns + j] +=
              in[0][at_a + (t.a ? k * a_columns + i : i * a_columns + k)] *
              in[1][at_b + (t.b ? j * b_columns + k : k * b_columns + j)];
  });
  return {y};
}

}  // namespace

void add_product_references(References& table) {
  table["matmul"] = reference<Transposes>(matmul);
  table["affine"] = reference([](const Arrays& in) -> Arrays {
    Arrays y = matmul(in, {false, true});
    for (Index i = 0; i < y[0].size(); ++i) y[0][i] += in[2][i % in[2].size()];
    return y;
  });
  table["outer"] = reference([](const Arrays& in) -> Arrays {
    Array y(Shape{in[0].size(), in[1].size()});
    for (Index i = 0; i < y.size(); ++i) y[i] = in[0][i / in[1].size()] * in[1][i % in[1].size()];
    return {y};
  });
  table["dot"] = reference([](const Arrays& in) -> Arrays {
    Array y{Shape{}};
    for (Index i = 0; i < in[0].size(); ++i) y[0] += in[0][i] * in[1][i];
    return {y};
  });
}

}  // namespace reel::testing
