#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace reel::kernels {

/// Number of blocks generated at a time, enough for vectorisation.
inline constexpr int philox_lanes = 16;

/// Random words by index within a block, then by block.
using PhiloxWords = std::array<std::array<std::uint32_t, philox_lanes>, 4>;

/// The blocks at positions position, position + 1, ... of a stream: those of `Rng::next`.
PhiloxWords philox_blocks(std::uint64_t seed, std::uint64_t stream, std::uint64_t position);

/// 53 random bits as a number in [0, 1).
[[gnu::always_inline]] inline double unit(std::uint32_t high, std::uint32_t low) {
  // An integer below 2^52, placed in the mantissa of 2^52, becomes a floating-point number.
  constexpr std::uint64_t shifter = 0x4330000000000000;
  const auto number = [](std::uint64_t x) { return std::bit_cast<double>(shifter | x) - 0x1p52; };
  return number(high) * 0x1p-32 + number(low >> 11) * 0x1p-53;
}

}  // namespace reel::kernels
