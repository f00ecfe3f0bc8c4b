#pragma once

#include <functional>
#include <type_traits>
#include <vector>

#include <reel/autograd/engine/op.h>

namespace reel::op {

/// The numbers of one tensor in row-major order, for formulas in plain arithmetic. `Array()` is an
/// absent optional argument.
struct Array {
  Shape shape;
  std::vector<double> x;

  Array() = default;
  explicit Array(const Shape& shape, double value = 0)
      : shape(shape), x(static_cast<std::size_t>(shape.size()), value) {}

  Index size() const { return static_cast<Index>(x.size()); }
  bool given() const { return size() == shape.size(); }
  double& operator[](Index i) { return x[static_cast<std::size_t>(i)]; }
  double operator[](Index i) const { return x[static_cast<std::size_t>(i)]; }
};
using Arrays = std::vector<Array>;

/// An independent source of an op's values: a formula in double, written without the op's kernel.
/// It catches an op that computes something else with a matching gradient.
struct Reference {
  std::function<Arrays(const Arrays& inputs, const void* attr)> formula;
  std::size_t attr_size = 0;
  /// Whether an element of the result depends on one element of each input. If so, errors are
  /// relative to that element, and the largest and smallest numbers are tested too; otherwise
  /// errors are relative to the largest element of the result, because of cancellation in sums.
  bool elementwise = false;
  /// Whether the formula is also valid for NaN and infinity.
  bool special = true;
  /// Whether the gradient of an elementwise op is finite wherever the formula has slopes.
  bool slopes = true;

  explicit operator bool() const { return static_cast<bool>(formula); }
};

/// Makes a reference of a formula f(inputs), or f(inputs, attr) for an op with attributes.
template <class Attr = NoAttr, class F>
Reference reference(F f) {
  Reference result;
  result.formula = [f](const Arrays& in, const void* attr) -> Arrays {
    return call_with<Attr>(f, in, attr);
  };
  result.attr_size = std::is_empty_v<Attr> ? 0 : sizeof(Attr);
  return result;
}

/// The same for an elementwise y = f(x) or f(x, attr) of one operand.
template <class Attr = NoAttr, class F>
Reference elementwise_reference(F f) {
  Reference result = reference<Attr>([f](const Arrays& in, const Attr& attr) -> Arrays {
    Array y(in[0].shape);
    for (Index i = 0; i < y.size(); ++i) y[i] = call_with<Attr>(f, in[0][i], &attr);
    return {y};
  });
  result.elementwise = true;
  return result;
}

}  // namespace reel::op
