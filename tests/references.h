#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>

#include <reel/autograd/check/reference.h>

/// What every op of the library computes, written a second time in plain loops over doubles,
/// independent of the kernels. Attributes are those of the op's definition, in the same order.
namespace reel::testing {
using namespace op;

using References = std::map<std::string_view, Reference>;

/// The reference of every op of the library, by name.
const References& references();
/// The reference of one op, or an empty one.
const Reference& reference_of(const OpSpec& op);

void add_elementwise_references(References& table);
void add_shape_references(References& table);
void add_index_references(References& table);
void add_reduction_references(References& table);
void add_product_references(References& table);
void add_loss_references(References& table);
void add_recurrent_references(References& table);
void add_sequence_references(References& table);

/// An index along each axis, starting with the first.
using Place = std::array<Index, Shape::max_rank>;

/// Calls f(place, i) for each element of an array of this shape, and its row-major position i.
template <class F>
void each_place(const Shape& shape, F f) {
  for (Index i = 0; i < shape.size(); ++i) {
    Place place{};
    Index rest = i;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      place[static_cast<std::size_t>(axis)] = rest % shape[axis];
      rest /= shape[axis];
    }
    f(place, i);
  }
}

/// The row-major position of a place.
inline Index position(const Shape& shape, const Place& place) {
  Index i = 0;
  for (int axis = 0; axis < shape.rank(); ++axis)
    i = i * shape[axis] + place[static_cast<std::size_t>(axis)];
  return i;
}

/// The position in a smaller array that is broadcast to the shape in which the place is.
inline Index broadcast_position(const Shape& small, const Shape& large, const Place& place) {
  Place own{};
  for (int axis = 0; axis < small.rank(); ++axis)
    if (small[axis] != 1)
      own[static_cast<std::size_t>(axis)] =
          place[static_cast<std::size_t>(axis + large.rank() - small.rank())];
  return position(small, own);
}

/// The place with another position along one axis.
inline Place moved_to(Place place, int axis, Index i) {
  place[static_cast<std::size_t>(axis)] = i;
  return place;
}
inline Index along(const Place& place, int axis) { return place[static_cast<std::size_t>(axis)]; }

}  // namespace reel::testing
