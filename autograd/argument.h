#pragma once

#include <concepts>
#include <limits>
#include <type_traits>
#include <utility>

namespace reel {

/// Whether an argument of type T may be passed as a `From`: only a bool for a bool, any integer or
/// enumerator for an integer, any number for a floating-point number. A bool is not a number here.
template <class From, class T>
concept GivenAs = (std::same_as<From, bool> ==
                   std::same_as<T, bool>)&&((std::integral<From> && !std::same_as<From, char>) ||
                                            (std::is_enum_v<From> &&
                                             std::is_convertible_v<From, int>) ||
                                            (std::floating_point<From> && std::floating_point<T>));

/// A value of the wrong kind: true for an axis, 1 for keepdims, 0.5 for an index.
template <class From, class T>
concept MistakenFor = std::is_arithmetic_v<From> && !GivenAs<From, T>;

/// An argument without implicit conversions, so that 0.0 in `max(x, 0.0)` is not taken for an axis,
/// nor true in `cumsum(x, true)` for axis 1. Arg<int> and Arg<Index> take integers, Arg<bool> bools
/// and Arg<double> numbers; anything else does not compile. An integer out of T's range saturates;
/// it never wraps around.
template <class T>
class Arg {
 public:
  template <GivenAs<T> From>
  constexpr Arg(From value) : value_(converted(value)) {}
  template <MistakenFor<T> From>
  Arg(From) = delete;

  constexpr operator T() const { return value_; }
  /// How fmt prints it, by T's format; before fmt 10 it does so by itself.
  friend constexpr T format_as(const Arg& argument) { return argument.value_; }

 private:
  template <class From>
  static constexpr T converted(From value) {
    if constexpr (std::integral<T> && !std::same_as<T, bool>) {
      constexpr T low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
      const auto number = +value;
      return std::cmp_less(number, low)       ? low
             : std::cmp_greater(number, high) ? high
                                              : static_cast<T>(number);
    } else {
      return static_cast<T>(value);
    }
  }
  T value_;
};

}  // namespace reel
