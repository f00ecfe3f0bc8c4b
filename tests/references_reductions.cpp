#include <algorithm>
#include <cmath>

#include "references.h"

namespace reel::testing {
namespace {

struct Reduction {
  std::uint32_t axes;
  bool keepdims;
};
struct Spread {
  Reduction over;
  int correction;
};
struct Along {
  int axis;
};
struct Epsilon {
  double epsilon;
};

using Group = std::vector<double>;

// y = f(group) for each element of the result and the group of elements reduced to it.
template <class F>
Array reduced(const Array& x, const Reduction& r, F f) {
  Shape shape = x.shape;
  for (int axis = 0; axis < shape.rank(); ++axis)
    if (r.axes >> axis & 1) shape = shape.with(axis, 1);
  std::vector<Group> groups(static_cast<std::size_t>(shape.size()));
  each_place(x.shape, [&](const Place& place, Index i) {
    groups[static_cast<std::size_t>(broadcast_position(shape, x.shape, place))].push_back(x[i]);
  });
  Array y(shape);
  std::ranges::transform(groups, y.x.begin(), f);
  for (int axis = shape.rank() - 1; axis >= 0 && !r.keepdims; --axis)
    if (r.axes >> axis & 1) y.shape = y.shape.erase(axis);
  return y;
}

template <class F>
Reference reduction_reference(F f) {
  return reference<Reduction>(
      [f](const Arrays& in, const Reduction& r) -> Arrays { return {reduced(in[0], r, f)}; });
}

double sum(const Group& group) {
  double sum = 0;
  for (double x : group) sum += x;
  return sum;
}
double mean(const Group& group) { return sum(group) / static_cast<double>(group.size()); }

double variance(const Group& group, int correction) {
  const double m = mean(group);
  double squares = 0;
  for (double x : group) squares += (x - m) * (x - m);
  return squares / (static_cast<double>(group.size()) - correction);
}

double largest(const Group& group) {
  double y = -INFINITY;
  for (double x : group)
    if (!(x <= y)) y = std::isnan(y) ? y : x;
  return y;
}

double logsumexp(const Group& group) {
  const double top = largest(group), origin = std::isfinite(top) ? top : 0;
  double sum = 0;
  for (double x : group) sum += std::exp(x - origin);
  return origin + std::log(sum);
}

void add_reductions(References& table) {
  const auto add = [&](const char* name, auto f) { table[name] = reduction_reference(f); };
  add("sum", sum);
  add("mean", mean);
  add("max", largest);
  add("min", [](Group group) {
    for (double& x : group) x = -x;
    return -largest(group);
  });
  add("logsumexp", logsumexp);
  add("prod", [](const Group& group) {
    double product = 1;
    for (double x : group) product *= x;
    return product;
  });
  add("norm", [](const Group& group) {
    double y = 0;
    for (double x : group) y = std::hypot(y, x);
    return std::ranges::any_of(group, [](double x) { return std::isnan(x); }) ? NAN : y;
  });
  add("any", [](const Group& group) -> double {
    return std::ranges::any_of(group, [](double x) { return x != 0; });
  });
  add("all", [](const Group& group) -> double {
    return std::ranges::all_of(group, [](double x) { return x != 0; });
  });
  const auto add_spread = [&](const char* name, double (*f)(double)) {
    table[name] = reference<Spread>([f](const Arrays& in, const Spread& s) -> Arrays {
      return {reduced(in[0], s.over,
                      [&](const Group& group) { return f(variance(group, s.correction)); })};
    });
  };
  add_spread("var", [](double variance) { return variance; });
  add_spread("std", [](double variance) { return std::sqrt(variance); });
}

// y = f(line) for each line along an axis.
template <class F>
Reference line_reference(F f) {
  return reference<Along>([f](const Arrays& in, const Along& at) -> Arrays {
    Array y = in[0];
    each_place(y.shape.with(at.axis, std::min<Index>(1, y.shape[at.axis])), [&](const Place& place,
                                                                                Index) {
      Group line;
      for (Index i = 0; i < y.shape[at.axis]; ++i)
        line.push_back(in[0][position(y.shape, moved_to(place, at.axis, i))]);
      f(line);
      for (Index i = 0; i < y.shape[at.axis]; ++i)
        y[position(y.shape, moved_to(place, at.axis, i))] = line[static_cast<std::size_t>(i)];
    });
    return {y};
  });
}

// x - ln Σ eˣ, elementwise; an infinite element gets probability 1.
void log_softmax(Group& line) {
  const double top = largest(line);
  double total = 0;
  for (double& x : line) total += std::exp(x = x == INFINITY ? 0 : x - top);
  for (double& x : line) x -= std::log(total);
}

void softmax(Group& line) {
  log_softmax(line);
  for (double& x : line) x = std::exp(x);
}

struct Jacobian {
  std::int64_t axis;
  bool transposed;
};

// v - Σ w v / Σ w along the axis, or transposed v - w Σ v / Σ w.
Arrays times_jacobian(const Arrays& in, const Jacobian& j) {
  const Array &v = in[0], &w = in[1];
  const int axis = static_cast<int>(j.axis);
  const Index size = v.shape[axis];
  Array y = v;
  each_place(v.shape, [&](const Place& place, Index i) {
    double total = 0, sum = 0;
    for (Index k = 0; k < size; ++k) {
      const Index other = position(v.shape, moved_to(place, axis, k));
      total += w[other];
      sum += j.transposed ? w[i] * v[other] : w[other] * v[other];
    }
    y[i] = v[i] - sum / total;
  });
  return {y};
}

template <bool centred>
Arrays normalized(const Arrays& in, const Epsilon& e) {
  Array y = in[0];
  const Index features = in[1].size();
  for (Index row = 0; row < y.size() / features; ++row) {
    const Group x(in[0].x.begin() + row * features, in[0].x.begin() + (row + 1) * features);
    const double m = centred ? mean(x) : 0;
    double squares = 0;
    for (double value : x) squares += (value - m) * (value - m);
    double deviation = std::sqrt(squares / static_cast<double>(features) + e.epsilon);
    if (std::isinf(deviation)) deviation = NAN;  // a row with an infinity has no finite scale
    for (Index f = 0; f < features; ++f)
      y[row * features + f] = (x[static_cast<std::size_t>(f)] - m) / deviation * in[1][f] +
                              (centred ? in.back()[f] : 0);
  }
  return {y};
}

}  // namespace

void add_reduction_references(References& table) {
  add_reductions(table);
  table["softmax"] = line_reference(softmax);
  table["log_softmax"] = line_reference(log_softmax);
  table["times_log_softmax_jacobian"] = reference<Jacobian>(times_jacobian);
  table["layer_norm"] = reference<Epsilon>(normalized<true>);
  table["rms_norm"] = reference<Epsilon>(normalized<false>);
}

}  // namespace reel::testing
