#include <reel/autograd/shape.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <ostream>

namespace reel {

std::string Shape::str() const { return fmt::format("[{}]", fmt::join(begin(), end(), ", ")); }

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.str(); }

void Shape::throw_invalid(const Index* sizes, std::size_t count, Site site) {
  const std::string why =
      std::any_of(sizes, sizes + count, [](Index size) { return size < 0; })
          ? "a size must not be negative"
      : count > max_rank
          ? fmt::format("a tensor has at most {} axes; reshape or merge axes first", max_rank)
          : "a tensor has at most 2^59 elements";
  throw ShapeError(fmt::format("shape [{}]: {}", fmt::join(sizes, sizes + count, ", "), why), site);
}

Shape Shape::insert(int axis, Index size) const {
  std::array<Index, max_rank + 1> sizes{};
  std::copy(begin(), begin() + axis, sizes.begin());
  sizes[static_cast<std::size_t>(axis)] = size;
  std::copy(begin() + axis, end(), sizes.begin() + axis + 1);
  return Shape(sizes.data(), static_cast<std::size_t>(rank_ + 1), Site(nullptr, 0));
}

Shape Shape::erase(int axis) const {
  Shape shorter;
  for (int a = 0; a < rank_; ++a)
    if (a != axis) shorter.sizes_[static_cast<std::size_t>(shorter.rank_++)] = (*this)[a];
  return shorter;
}

int normalized_axis(int axis, int rank, const char* op, Site site) {
  const int normalized = axis < 0 ? axis + rank : axis;
  if (normalized < 0 || normalized >= rank)
    throw ShapeError(
        fmt::format(
            "{}: axis {} is out of range for a tensor of rank {}{}", op, axis, rank,
            rank > 0 ? fmt::format("; use {} to {}", -rank, rank - 1) : ", which has no axes"),
        site);
  return normalized;
}

Shape broadcast(const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape result = longer;
  const int offset = longer.rank() - shorter.rank();
  for (int axis = 0; axis < shorter.rank(); ++axis) {
    const Index m = longer[axis + offset], n = shorter[axis];
    if (m != n && m != 1 && n != 1)
      throw ShapeError(
          fmt::format("shapes {} and {} do not broadcast: sizes {} and {} differ and neither is 1",
                      a.str(), b.str(), m, n));
    result = result.with(axis + offset, m == 1 ? n : m);
  }
  return result;
}

}  // namespace reel
