#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace reel {

/// The element type of a tensor: f32 for training, f64 for verification, i32 for indices and masks.
enum class DType : std::uint8_t { f32, f64, i32 };

inline constexpr DType f32 = DType::f32;
inline constexpr DType f64 = DType::f64;
inline constexpr DType i32 = DType::i32;

template <class T>
concept Element =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, std::int32_t>;

template <class T>
concept Real = std::is_same_v<T, float> || std::is_same_v<T, double>;

template <Element T>
inline constexpr DType dtype_of = std::is_same_v<T, float>    ? DType::f32
                                  : std::is_same_v<T, double> ? DType::f64
                                                              : DType::i32;

/// Bytes of an element.
constexpr std::size_t size_of(DType dtype) { return dtype == DType::f64 ? 8 : 4; }
/// Whether it is f32 or f64.
constexpr bool is_real(DType dtype) { return dtype != DType::i32; }

/// "f32", "f64" or "i32".
constexpr std::string_view name_of(DType dtype) {
  return dtype == DType::f32 ? "f32" : dtype == DType::f64 ? "f64" : "i32";
}

/// The type in which elements are added and multiplied: integers wrap around, as in NumPy, instead
/// of overflowing.
template <Element T>
using Modular = std::conditional_t<std::is_same_v<T, std::int32_t>, std::uint32_t, T>;

/// Calls `f.template operator()<T>()` with the C++ type of `dtype`.
template <class F>
decltype(auto) dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    default:
      return f.template operator()<std::int32_t>();
  }
}

/// The same for the two floating-point types; anything but f32 is taken as f64.
template <class F>
decltype(auto) dispatch_real(DType dtype, F&& f) {
  if (dtype == DType::f32) return f.template operator()<float>();
  return f.template operator()<double>();
}

}  // namespace reel
