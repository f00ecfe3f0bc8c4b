#include <reel/autograd/kernels/philox.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cstring>
#include <utility>

// Compiled once for each level: see level.h.
namespace reel::kernels {
namespace {

#if defined(__AVX512F__)
constexpr std::size_t vector_bytes = 64;
#elif defined(__AVX2__)
constexpr std::size_t vector_bytes = 32;
#else
constexpr std::size_t vector_bytes = 16;
#endif
// A word of each of `lanes` blocks, in the low half of its lane. What is in the high halves does
// not matter: the product reads low halves alone, and is at once the next round's low word.
using Wide = std::uint64_t __attribute__((vector_size(vector_bytes)));
constexpr std::size_t lanes = vector_bytes / sizeof(std::uint64_t);
static_assert(philox_lanes % (2 * lanes) == 0 && philox_step % lanes == 0);

constexpr std::uint64_t low_half = 0xFFFFFFFF;

// The products of the low halves. Compilers split a 64-bit multiplication into several even if they
// know that its factors have 32 bits.
[[gnu::always_inline]] inline Wide products(const Wide& a, std::uint32_t factor) {
#if defined(__AVX512F__)
  return reinterpret_cast<Wide>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(factor)));
#elif defined(__AVX2__)
  return reinterpret_cast<Wide>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(factor)));
#elif defined(__SSE2__)
  return reinterpret_cast<Wide>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), _mm_set1_epi64x(factor)));
#else
  return (a & low_half) * factor;
#endif
}

struct Blocks {
  Wide words[4];
};

// The blocks at `position` plus these offsets.
[[gnu::always_inline]] inline Blocks blocks_at(std::uint64_t seed, std::uint64_t stream,
                                               std::uint64_t position, const Wide& offsets) {
  const Wide counter = position + offsets;
  Blocks blocks{{counter, counter >> 32, Wide{} + low_word(stream), Wide{} + high_word(stream)}};
  const auto multiply = [](const Wide& a, std::uint32_t factor, Wide& high, Wide& low)
      __attribute__((always_inline)) {
    low = products(a, factor);
    high = low >> 32;
  };
  philox_rounds(blocks.words, seed, multiply);
  return blocks;
}

// The low halves of a and b, alternating.
[[gnu::always_inline]] inline Wide alternate(const Wide& a, const Wide& b) {
  return (a & low_half) | b << 32;
}

template <std::size_t... Lane>
constexpr Wide to_vector(const auto& lane, std::index_sequence<Lane...>) {
  return Wide{lane(Lane)...};
}
constexpr Wide make_vector(const auto& lane) {
  return to_vector(lane, std::make_index_sequence<lanes>{});
}

// Lane `parity` of each pair of a, then of b.
template <std::size_t parity, std::size_t... Lane>
[[gnu::always_inline]] inline Wide of_pairs(const Wide& a, const Wide& b,
                                            std::index_sequence<Lane...>) {
  return __builtin_shufflevector(a, b, (Lane / 2 * 2 + parity + Lane % 2 * lanes)...);
}

[[gnu::always_inline]] inline void store(const Wide& x, std::uint32_t* to) {
  std::memcpy(to, &x, sizeof x);
}

}  // namespace

template <>
void philox_words_at<lowest_level>(std::uint64_t seed, std::uint64_t stream, std::uint64_t position,
                                   std::size_t blocks, std::uint32_t* to) {
  // Even lanes have the first half of the blocks and odd ones the second, so that two words of a
  // block meet the other two within a pair of lanes.
  constexpr Wide offsets = make_vector([](std::size_t l) { return l % 2 * lanes / 2 + l / 2; });
  constexpr std::make_index_sequence<lanes> sequence;
  for (std::size_t first = 0; first < blocks; first += lanes, to += 4 * lanes) {
    const auto [a, b, c, d] = blocks_at(seed, stream, position + first, offsets).words;
    const Wide ab = alternate(a, b), cd = alternate(c, d);
    store(of_pairs<0>(ab, cd, sequence), to);
    store(of_pairs<1>(ab, cd, sequence), to + 2 * lanes);
  }
}

template <>
PhiloxWords philox_blocks_at<lowest_level>(std::uint64_t seed, std::uint64_t stream,
                                           std::uint64_t position) {
  constexpr Wide evens = make_vector([](std::size_t l) { return 2 * l; });
  PhiloxWords result;
  for (std::size_t first = 0; first < philox_lanes; first += 2 * lanes) {
    const Blocks even = blocks_at(seed, stream, position + first, evens);
    const Blocks odd = blocks_at(seed, stream, position + first, evens + 1);
    for (std::size_t w = 0; w < 4; ++w)
      store(alternate(even.words[w], odd.words[w]), result[w].data() + first);
  }
  return result;
}

}  // namespace reel::kernels
