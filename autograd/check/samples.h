#pragma once

#include <vector>

#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

namespace reel::op {

/// Describes one input of a sample, from which tests draw a tensor. Generators keep away from kinks
/// of the op, so that checks can use tight tolerances.
struct Generator {
  enum class Kind { normal, uniform, away_from_zero, distinct, indices, values, absent };

  Kind kind;
  Shape shape;
  Index limit = 0;  ///< indices: 0 <= index < limit, or <= if it is inclusive
  bool inclusive = false;
  std::vector<double> fixed = {};  ///< values
  double low = 0, high = 1;        ///< uniform: low <= x < high

  /// Draws a tensor; indices are i32 whatever `dtype` is. An absent one is undefined.
  Tensor draw(Rng& rng, DType dtype) const;
};

/// Standard normal numbers.
inline Generator normal(const Shape& shape) { return {Generator::Kind::normal, shape}; }
/// Uniform in [low, high).
inline Generator uniform(const Shape& shape, double low, double high) {
  Generator generator{Generator::Kind::uniform, shape};
  generator.low = low;
  generator.high = high;
  return generator;
}
/// Uniform in [0.5, 2).
inline Generator positive(const Shape& shape) { return uniform(shape, 0.5, 2); }
/// Of either sign, with magnitude at least 0.1.
inline Generator away_from_zero(const Shape& shape) {
  return {Generator::Kind::away_from_zero, shape};
}
/// Numbers at least 0.1 apart, in random order.
inline Generator distinct(const Shape& shape) { return {Generator::Kind::distinct, shape}; }
/// Integers in 0 .. limit-1.
inline Generator indices(const Shape& shape, Index limit) {
  return {Generator::Kind::indices, shape, limit};
}
/// Lengths of sequences: integers in 0 .. steps.
inline Generator lengths(const Shape& shape, Index steps) {
  return {Generator::Kind::indices, shape, steps, true};
}
/// Exactly these numbers, as a vector.
inline Generator values(std::initializer_list<double> numbers) {
  return {Generator::Kind::values, Shape{static_cast<Index>(numbers.size())}, 0, false, numbers};
}

/// An optional argument that is not given.
inline Generator absent() { return {Generator::Kind::absent, Shape{0}}; }

/// The inputs and attributes of one sample call of an op with attributes `Attr`.
template <class Attr>
struct TypedSample {
  std::vector<Generator> inputs;
  Attr attr{};
};

/// `with_inputs(normal({3, 4}), normal({4}))`, and where there are attributes
/// `with_inputs(normal({3, 4})).attr(Slice{...})`.
struct SampleInputs {
  std::vector<Generator> inputs;
  /// The same with attributes.
  template <class Attr>
  TypedSample<Attr> attr(const Attr& attr) const {
    return {inputs, attr};
  }
};

/// The inputs of a sample; see SampleInputs.
template <class... G>
SampleInputs with_inputs(const G&... generators) {
  return {{generators...}};
}

/// The samples of an op. There is no default: an op without samples does not compile.
template <class Attr>
class Samples {
 public:
  /// A sample, or for a single input its generator.
  struct Item : TypedSample<Attr> {
    Item(const Generator& only) : TypedSample<Attr>{{only}, {}} {}
    Item(const SampleInputs& sample) : TypedSample<Attr>{sample.inputs, {}} {}
    Item(const TypedSample<Attr>& sample) : TypedSample<Attr>(sample) {}
  };
  Samples(std::initializer_list<Item> items) : items_(items) {}
  Samples(std::vector<Item> items) : items_(std::move(items)) {}
  const std::vector<Item>& items() const { return items_; }

 private:
  std::vector<Item> items_;
};

}  // namespace reel::op
