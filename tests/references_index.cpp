#include <algorithm>
#include <cmath>
#include <numeric>

#include "references.h"

namespace reel::testing {
namespace {

struct Count {
  Index count;
};
struct Filling {
  double value;
};
struct Along {
  int axis;
};
struct Scattering {
  std::int64_t axis;
  Index size;
};
struct Search {
  int axis;
  bool keepdims;
};
struct Scan {
  int axis;
  bool reverse;
};
struct Direction {
  int axis;
  bool descending;
};
struct Largest {
  std::int64_t axis;
  Index count;
};

Index whole(double x) { return static_cast<Index>(x); }

void add_rows(References& table) {
  table["gather_rows"] = reference([](const Arrays& in) -> Arrays {
    const Index features = in[0].shape[1];
    Array y(in[1].shape.insert(in[1].shape.rank(), features));
    for (Index i = 0; i < y.size(); ++i)
      y[i] = in[0][whole(in[1][i / features]) * features + i % features];
    return {y};
  });
  table["scatter_add_rows"] = reference<Count>([](const Arrays& in, const Count& rows) -> Arrays {
    const Index features = in[0].shape[in[0].shape.rank() - 1];
    Array y(Shape{rows.count, features});
    for (Index i = 0; i < in[0].size(); ++i)
      y[whole(in[1][i / features]) * features + i % features] += in[0][i];
    return {y};
  });
  table["one_hot"] = reference<Count>([](const Arrays& in, const Count& classes) -> Arrays {
    Array y(in[0].shape.insert(in[0].shape.rank(), classes.count));
    for (Index i = 0; i < in[0].size(); ++i) y[i * classes.count + whole(in[0][i])] = 1;
    return {y};
  });
  table["masked_fill"] = reference<Filling>([](const Arrays& in, const Filling& with) -> Arrays {
    Array y = in[0];
    each_place(y.shape, [&](const Place& place, Index i) {
      if (in[1][broadcast_position(in[1].shape, y.shape, place)] != 0) y[i] = with.value;
    });
    return {y};
  });
}

// The elements along the axis at a place, in order.
std::vector<double> line(const Array& x, const Place& place, int axis) {
  std::vector<double> numbers;
  for (Index i = 0; i < x.shape[axis]; ++i)
    numbers.push_back(x[position(x.shape, moved_to(place, axis, i))]);
  return numbers;
}

// Calls f(place, line) for each line along an axis, at the place of its first element.
template <class F>
void each_line(const Array& x, int axis, F f) {
  each_place(x.shape.with(axis, 1),
             [&](const Place& place, Index) { f(place, line(x, place, axis)); });
}

template <class Better>
Reference search_reference(Better better) {
  return reference<Search>([better](const Arrays& in, const Search& search) -> Arrays {
    Array y(in[0].shape.with(search.axis, 1));
    Index next = 0;
    each_line(in[0], search.axis, [&](const Place&, const std::vector<double>& x) {
      std::size_t best = 0;
      for (std::size_t i = 1; i < x.size() && !std::isnan(x[best]); ++i)
        if (std::isnan(x[i]) || better(x[i], x[best])) best = i;
      y[next++] = static_cast<double>(best);
    });
    if (!search.keepdims) y.shape = y.shape.erase(search.axis);
    return {y};
  });
}

// The positions of the elements of a line in sorted order, NaN last; a stable sort.
std::vector<Index> order_of(const std::vector<double>& x, bool descending) {
  std::vector<Index> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](Index i, Index j) {
    const double a = x[static_cast<std::size_t>(i)], b = x[static_cast<std::size_t>(j)];
    if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
    return descending ? a > b : a < b;
  });
  return order;
}

Array ordered(const Array& x, int axis, Index count, bool descending) {
  Array y(x.shape.with(axis, count));
  each_line(x, axis, [&](const Place& place, const std::vector<double>& numbers) {
    const auto order = order_of(numbers, descending);
    for (Index k = 0; k < count; ++k)
      y[position(y.shape, moved_to(place, axis, k))] =
          static_cast<double>(order[static_cast<std::size_t>(k)]);
  });
  return y;
}

// The elements at these positions along an axis, and the positions.
Arrays with_positions(const Array& x, const Array& positions, int axis) {
  Array y(positions.shape);
  each_place(y.shape, [&](const Place& place, Index i) {
    y[i] = x[position(x.shape, moved_to(place, axis, whole(positions[i])))];
  });
  return {y, positions};
}

void add_lines(References& table) {
  table["take_along"] = reference<Along>([](const Arrays& in, const Along& at) -> Arrays {
    Array y(in[1].shape);
    each_place(y.shape, [&](const Place& place, Index i) {
      y[i] = in[0][position(in[0].shape, moved_to(place, at.axis, whole(in[1][i])))];
    });
    return {y};
  });
  table["scatter_along"] =
      reference<Scattering>([](const Arrays& in, const Scattering& to) -> Arrays {
        const int axis = static_cast<int>(to.axis);
        Array y(in[0].shape.with(axis, to.size));
        each_place(in[0].shape, [&](const Place& place, Index i) {
          y[position(y.shape, moved_to(place, axis, whole(in[1][i])))] += in[0][i];
        });
        return {y};
      });
  table["cumsum"] = reference<Scan>([](const Arrays& in, const Scan& scan) -> Arrays {
    Array y(in[0].shape);
    each_line(in[0], scan.axis, [&](const Place& place, const std::vector<double>& x) {
      double sum = 0;
      for (Index s = 0; s < std::ssize(x); ++s) {
        const Index i = scan.reverse ? std::ssize(x) - 1 - s : s;
        y[position(y.shape, moved_to(place, scan.axis, i))] = sum += x[static_cast<std::size_t>(i)];
      }
    });
    return {y};
  });
  table["argmax"] = search_reference([](double a, double b) { return a > b; });
  table["argmin"] = search_reference([](double a, double b) { return a < b; });
  table["argsort"] = reference<Direction>([](const Arrays& in, const Direction& d) -> Arrays {
    return {ordered(in[0], d.axis, in[0].shape[d.axis], d.descending)};
  });
  table["sort"] = reference<Direction>([](const Arrays& in, const Direction& d) -> Arrays {
    const Index size = in[0].shape[d.axis];
    return with_positions(in[0], ordered(in[0], d.axis, size, d.descending), d.axis);
  });
  table["topk"] = reference<Largest>([](const Arrays& in, const Largest& l) -> Arrays {
    const int axis = static_cast<int>(l.axis);
    return with_positions(in[0], ordered(in[0], axis, l.count, true), axis);
  });
  table["topk_indices"] = reference<Largest>([](const Arrays& in, const Largest& l) -> Arrays {
    return {ordered(in[0], static_cast<int>(l.axis), l.count, true)};
  });
}

}  // namespace

void add_index_references(References& table) {
  add_rows(table);
  add_lines(table);
}

}  // namespace reel::testing
