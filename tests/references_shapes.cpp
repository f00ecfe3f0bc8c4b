#include <algorithm>

#include "references.h"

namespace reel::testing {
namespace {

struct Target {
  Shape shape;
};
struct AxisSet {
  std::uint32_t axes;
};
struct Along {
  int axis;
};
struct Permutation {
  std::array<int, Shape::max_rank> order;
};
struct AxisPair {
  int first, second;
};
struct Diagonal {
  Index k;
};
struct Range {
  std::int64_t axis;
  Index begin, end, step;
};
struct Padding {
  std::int64_t axis;
  Index before, after, step;
};
struct Repetition {
  std::int64_t axis;
  Index count;
};

Array in_shape(const Array& x, const Shape& shape) {
  Array y(shape);
  y.x = x.x;
  return y;
}

// y at each place is x at from(place).
template <class F>
Array picked(const Array& x, const Shape& shape, F from) {
  Array y(shape);
  each_place(shape, [&](const Place& place, Index i) { y[i] = x[position(x.shape, from(place))]; });
  return y;
}

Array permuted(const Array& x, const std::array<int, Shape::max_rank>& order) {
  Shape shape = x.shape;
  const int rank = shape.rank();
  for (int axis = 0; axis < rank; ++axis)
    shape = shape.with(axis, x.shape[order[static_cast<std::size_t>(axis)]]);
  return picked(x, shape, [&](const Place& place) {
    Place from{};
    for (int axis = 0; axis < rank; ++axis)
      from = moved_to(from, order[static_cast<std::size_t>(axis)], along(place, axis));
    return from;
  });
}

void add_same_numbers(References& table) {
  table["reshape"] = reference<Target>(
      [](const Arrays& in, const Target& to) -> Arrays { return {in_shape(in[0], to.shape)}; });
  table["squeeze"] = reference<AxisSet>([](const Arrays& in, const AxisSet& gone) -> Arrays {
    std::vector<Index> sizes;
    for (int axis = 0; axis < in[0].shape.rank(); ++axis)
      if (!(gone.axes >> axis & 1)) sizes.push_back(in[0].shape[axis]);
    return {in_shape(in[0], Shape(std::span<const Index>(sizes)))};
  });
  table["expand"] = reference<Along>([](const Arrays& in, const Along& at) -> Arrays {
    std::vector<Index> sizes(in[0].shape.begin(), in[0].shape.end());
    sizes.insert(sizes.begin() + at.axis, 1);
    return {in_shape(in[0], Shape(std::span<const Index>(sizes)))};
  });
  table["permute"] = reference<Permutation>(
      [](const Arrays& in, const Permutation& p) -> Arrays { return {permuted(in[0], p.order)}; });
  table["transpose"] = reference<AxisPair>([](const Arrays& in, const AxisPair& axes) -> Arrays {
    std::array<int, Shape::max_rank> order{0, 1, 2, 3};
    order[static_cast<std::size_t>(axes.first)] = axes.second;
    order[static_cast<std::size_t>(axes.second)] = axes.first;
    return {permuted(in[0], order)};
  });
  table["flip"] = reference<Along>([](const Arrays& in, const Along& at) -> Arrays {
    return {picked(in[0], in[0].shape, [&](const Place& place) {
      return moved_to(place, at.axis, in[0].shape[at.axis] - 1 - along(place, at.axis));
    })};
  });
}

void add_parts(References& table) {
  table["broadcast_to"] = reference<Target>([](const Arrays& in, const Target& to) -> Arrays {
    Array y(to.shape);
    each_place(to.shape, [&](const Place& place, Index i) {
      y[i] = in[0][broadcast_position(in[0].shape, to.shape, place)];
    });
    return {y};
  });
  table["sum_to"] = reference<Target>([](const Arrays& in, const Target& to) -> Arrays {
    Array y(to.shape);
    each_place(in[0].shape, [&](const Place& place, Index i) {
      y[broadcast_position(to.shape, in[0].shape, place)] += in[0][i];
    });
    return {y};
  });
  table["slice"] = reference<Range>([](const Arrays& in, const Range& r) -> Arrays {
    const int axis = static_cast<int>(r.axis);
    const auto from_end = [&](Index i) { return i < 0 ? i + in[0].shape[axis] : i; };
    const Index begin = from_end(r.begin);
    Index count = 0;
    for (Index i = begin; i < from_end(r.end); i += r.step) ++count;
    return {picked(in[0], in[0].shape.with(axis, count), [&](const Place& place) {
      return moved_to(place, axis, begin + along(place, axis) * r.step);
    })};
  });
  table["pad"] = reference<Padding>([](const Arrays& in, const Padding& p) -> Arrays {
    const int axis = static_cast<int>(p.axis);
    const Index size = in[0].shape[axis];
    const Index spread = size == 0 ? 0 : (size - 1) * p.step + 1;
    Array y(in[0].shape.with(axis, p.before + spread + p.after));
    each_place(in[0].shape, [&](const Place& place, Index i) {
      y[position(y.shape, moved_to(place, axis, p.before + along(place, axis) * p.step))] =
          in[0][i];
    });
    return {y};
  });
  table["repeat"] = reference<Repetition>([](const Arrays& in, const Repetition& r) -> Arrays {
    const int axis = static_cast<int>(r.axis);
    return {picked(
        in[0], in[0].shape.with(axis, in[0].shape[axis] * r.count),
        [&](const Place& place) { return moved_to(place, axis, along(place, axis) / r.count); })};
  });
  const auto triangle = [](auto keeps) {
    return reference<Diagonal>([keeps](const Arrays& in, const Diagonal& d) -> Arrays {
      const Shape& shape = in[0].shape;
      Array y(shape);
      each_place(shape, [&](const Place& place, Index i) {
        if (keeps(along(place, shape.rank() - 1) - along(place, shape.rank() - 2), d.k))
          y[i] = in[0][i];
      });
      return {y};
    });
  };
  table["tril"] = triangle([](Index above, Index k) { return above <= k; });
  table["triu"] = triangle([](Index above, Index k) { return above >= k; });
}

void add_joins(References& table) {
  table["concat"] = reference<Along>([](const Arrays& in, const Along& at) -> Arrays {
    Index size = 0;
    for (const Array& x : in) size += x.shape[at.axis];
    Array y(in[0].shape.with(at.axis, size));
    Index begin = 0;
    for (const Array& x : in) {
      each_place(x.shape, [&](const Place& place, Index i) {
        y[position(y.shape, moved_to(place, at.axis, begin + along(place, at.axis)))] = x[i];
      });
      begin += x.shape[at.axis];
    }
    return {y};
  });
  table["stack"] = reference<Along>([](const Arrays& in, const Along& at) -> Arrays {
    std::vector<Index> sizes(in[0].shape.begin(), in[0].shape.end());
    sizes.insert(sizes.begin() + at.axis, std::ssize(in));
    Array y{Shape(std::span<const Index>(sizes))};
    each_place(y.shape, [&](const Place& place, Index i) {
      Place from = place;
      std::copy(place.begin() + at.axis + 1, place.end(), from.begin() + at.axis);
      const Array& x = in[static_cast<std::size_t>(along(place, at.axis))];
      y[i] = x[position(x.shape, from)];
    });
    return {y};
  });
}

}  // namespace

void add_shape_references(References& table) {
  add_same_numbers(table);
  add_parts(table);
  add_joins(table);
}

}  // namespace reel::testing
