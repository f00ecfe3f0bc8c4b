#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <ranges>
#include <span>
#include <string>

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>

namespace reel {

/// Sizes, offsets and counts of elements.
using Index = std::int64_t;

/// The sizes of a tensor's axes, outermost first: rank 0 (a scalar) to rank 4.
///
/// Negative axes count from the end where a function takes an `axis`.
class Shape {
 public:
  static constexpr int max_rank = 4;
  /// The most elements, such that sizes in bytes fit an Index; empty axes count as 1.
  static constexpr Index max_size = Index{1} << 59;

  constexpr Shape() = default;
  /// Throws ShapeError if there are more than `max_rank` sizes, one is negative, or there are more
  /// than `max_size` elements.
  constexpr Shape(std::initializer_list<Index> sizes, Site site = {})
      : Shape(sizes.begin(), sizes.size(), site) {}
  /// From a vector, a span or an array of sizes.
  template <std::ranges::contiguous_range R>
  requires(!std::same_as<R, Shape> &&
           std::same_as<std::ranges::range_value_t<R>, Index>) constexpr Shape(const R& sizes,
                                                                               Site site = {})
      : Shape(std::ranges::data(sizes), std::ranges::size(sizes), site) {}

  constexpr int rank() const { return rank_; }
  constexpr Index operator[](int axis) const { return sizes_[static_cast<std::size_t>(axis)]; }
  constexpr const Index* begin() const { return sizes_.data(); }
  constexpr const Index* end() const { return sizes_.data() + rank_; }

  /// The number of elements: the product of the sizes, 1 for a scalar.
  constexpr Index size() const {
    Index product = 1;
    for (Index s : *this) product *= s;
    return product;
  }

  /// The same shape with `size` in place of the size of `axis`.
  constexpr Shape with(int axis, Index size) const {
    std::array<Index, max_rank> sizes = sizes_;
    sizes[static_cast<std::size_t>(axis)] = size;
    return Shape(sizes.data(), static_cast<std::size_t>(rank_), Site(nullptr, 0));
  }
  /// The shape with a new axis of `size` before `axis` (`axis == rank()` appends).
  Shape insert(int axis, Index size) const;
  /// The shape without `axis`.
  Shape erase(int axis) const;

  /// The number of elements that one step along `axis` skips in row-major order.
  constexpr Index stride(int axis) const {
    Index product = 1;
    for (int a = axis + 1; a < rank_; ++a) product *= (*this)[a];
    return product;
  }

  constexpr bool operator==(const Shape& other) const {  // sizes beyond the rank are all 0
    Index difference = rank_ ^ other.rank_;
    for (std::size_t a = 0; a < max_rank; ++a) difference |= sizes_[a] ^ other.sizes_[a];
    return difference == 0;
  }

  /// "[2, 3]"; "[]" for a scalar.
  std::string str() const;

 private:
  constexpr Shape(const Index* sizes, std::size_t count, Site site) {
    if (!valid(sizes, count)) throw_invalid(sizes, count, site);
    rank_ = static_cast<int>(count);
    std::copy_n(sizes, count, sizes_.begin());
  }
  static constexpr bool valid(const Index* sizes, std::size_t count) {
    Index product = 1;
    for (std::size_t a = 0; a < count; ++a)
      if (sizes[a] < 0 || __builtin_mul_overflow(product, std::max<Index>(sizes[a], 1), &product) ||
          product > max_size)
        return false;
    return count <= max_rank;
  }
  [[noreturn]] static void throw_invalid(const Index* sizes, std::size_t count, Site site);

  std::array<Index, max_rank> sizes_{};
  int rank_ = 0;
};

/// As str().
std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// Normalises `axis` (which may count from the end) to 0 <= axis < rank. Throws ShapeError naming
/// `op` and the call if it is out of range.
int normalized_axis(int axis, int rank, const char* op, Site site = {});

/// NumPy's broadcasting: axes are aligned at the end, size 1 stretches.
/// Throws ShapeError, naming both shapes, when two sizes differ and neither is 1.
Shape broadcast(const Shape& a, const Shape& b);

}  // namespace reel
