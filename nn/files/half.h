#pragma once

#include <bit>
#include <cstdint>

namespace reel::nn {

/// The bits of an f32 with the value of a 16-bit IEEE number.
inline std::uint32_t widened_f16(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00) return sign | 0x7F800000u | (magnitude & 0x3FFu) << 13;  // inf, NaN
  if (magnitude >= 0x0400) return sign | ((magnitude << 13) + (112u << 23));
  return sign | std::bit_cast<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
}
/// The same for a bf16.
inline std::uint32_t widened_bf16(std::uint16_t half) { return std::uint32_t{half} << 16; }

}  // namespace reel::nn
