#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include <reel/autograd/kernels/level.h>

namespace reel::kernels {

/// Number of blocks generated at a time, enough for the chains of several vectors to overlap.
inline constexpr int philox_lanes = 64;

/// Words in order come in multiples of so many blocks, which is less for short rows.
inline constexpr std::size_t philox_step = 16;

/// Random words by index within a block, then by block.
using PhiloxWords = std::array<std::array<std::uint32_t, philox_lanes>, 4>;

constexpr std::uint32_t low_word(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
constexpr std::uint32_t high_word(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

/// The ten rounds of Philox4x32 on the words of a block, or on vectors of such words, where
/// `multiply(a, factor, high, low)` gives both halves of a product (Salmon et al., "Parallel Random
/// Numbers: As Easy as 1, 2, 3", 2011).
template <class Words, class Multiply>
[[gnu::always_inline]] inline void philox_rounds(Words (&words)[4], std::uint64_t seed,
                                                 Multiply multiply) {
  std::uint32_t key0 = low_word(seed), key1 = high_word(seed);
  for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9, key1 += 0xBB67AE85) {
    Words p_high, p_low, q_high, q_low;
    multiply(words[0], 0xD2511F53, p_high, p_low);
    multiply(words[2], 0xCD9E8D57, q_high, q_low);
    words[0] = q_high ^ words[1] ^ key0;
    words[1] = q_low;
    words[2] = p_high ^ words[3] ^ key1;
    words[3] = p_low;
  }
}

template <Level level>
PhiloxWords philox_blocks_at(std::uint64_t seed, std::uint64_t stream, std::uint64_t position);
template <Level level>
void philox_words_at(std::uint64_t seed, std::uint64_t stream, std::uint64_t position,
                     std::size_t blocks, std::uint32_t* to);

/// The blocks at positions position, position + 1, ... of a stream: those of `Rng::next`.
PhiloxWords philox_blocks(std::uint64_t seed, std::uint64_t stream, std::uint64_t position);
/// The words of `blocks` such blocks, a multiple of philox_step, in order.
void philox_words(std::uint64_t seed, std::uint64_t stream, std::uint64_t position,
                  std::size_t blocks, std::uint32_t* to);

/// Calls f(i, word) for i = 0 .. n-1, where number i takes word i % 4 of block i / 4.
template <class F>
[[gnu::always_inline]] inline void each_word(std::uint64_t seed, std::uint64_t stream,
                                             std::uint64_t position, std::size_t n, F f) {
  constexpr std::size_t words = 4, granularity = words * philox_step;
  std::array<std::uint32_t, 8 * granularity> drawn;
  for (std::size_t begin = 0; begin < n; begin += drawn.size()) {
    const std::size_t count = std::min(n - begin, drawn.size());
    const std::size_t rounded = (count + granularity - 1) / granularity * granularity;
    philox_words(seed, stream, position + begin / words, rounded / words, drawn.data());
    for (std::size_t i = 0; i < count; ++i) f(begin + i, drawn[i]);
  }
}

/// 53 random bits as a number in [0, 1).
[[gnu::always_inline]] inline double unit(std::uint32_t high, std::uint32_t low) {
  // An integer below 2^52, placed in the mantissa of 2^52, becomes a floating-point number.
  constexpr std::uint64_t shifter = 0x4330000000000000;
  const auto number = [](std::uint64_t x) { return std::bit_cast<double>(shifter | x) - 0x1p52; };
  return number(high) * 0x1p-32 + number(low >> 11) * 0x1p-53;
}

}  // namespace reel::kernels
