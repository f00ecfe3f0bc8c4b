#include <reel/autograd/row_gradient.h>

#include <algorithm>
#include <functional>
#include <iterator>

namespace reel {

Tensor RowGradient::whole(const Shape& matrix) const {
  Tensor all = zeros(matrix, values.dtype());
  const Index width = matrix[1];
  dispatch_real(values.dtype(), [&]<class T>() {
    const T* from = values.begin<T>();
    T* const to = all.begin_update<T>().data();
    for (std::int32_t row : rows.values<std::int32_t>()) {
      std::copy_n(from, width, to + row * width);
      from += width;
    }
  });
  return all;
}

// A row that one of them lacks is 0 there, and added as such: -0 + 0 is 0.
RowGradient operator+(const RowGradient& a, const RowGradient& b) {
  PoolVector<std::int32_t> rows;
  std::ranges::set_union(a.rows.values<std::int32_t>(), b.rows.values<std::int32_t>(),
                         std::back_inserter(rows));
  const Index width = a.values.size(1);
  RowGradient sum{tensor({std::ssize(rows)}, std::span<const std::int32_t>(rows)),
                  Tensor({std::ssize(rows), width}, a.values.dtype())};
  dispatch_real(a.values.dtype(), [&]<class T>() {
    const Scratch<T> zero(width);
    std::fill_n(zero.data(), width, T(0));
    Index of_a = 0, of_b = 0;
    const auto next = [&](const RowGradient& g, Index& k, std::int32_t row) -> const T* {
      const bool is_there = k < g.rows.size() && g.rows.begin<std::int32_t>()[k] == row;
      return is_there ? g.values.begin<T>() + k++ * width : zero.data();
    };
    T* to = sum.values.begin_update<T>().data();
    for (std::int32_t row : rows) {
      const T* x = next(a, of_a, row);
      to = std::transform(x, x + width, next(b, of_b, row), to, std::plus{});
    }
  });
  return sum;
}

}  // namespace reel
