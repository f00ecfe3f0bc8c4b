#include <reel/autograd/kernels/philox.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstring>

// Compiled once for each level: see level.h.
namespace reel::kernels {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif
using Words = std::uint32_t __attribute__((vector_size(vector_bytes)));
using Wide = std::uint64_t __attribute__((vector_size(vector_bytes)));
constexpr std::size_t lanes = vector_bytes / sizeof(std::uint32_t);

constexpr std::uint64_t low_half = 0xFFFFFFFF;

// The 64-bit products of the low halves. Compilers split a multiplication into several even if they
// know that its factors have 32 bits.
[[gnu::always_inline]] inline Wide products_of_low_halves(const Wide& a, std::uint32_t factor) {
#if defined(__AVX512F__)
  return reinterpret_cast<Wide>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(factor)));
#elif defined(__AVX2__)
  return reinterpret_cast<Wide>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(factor)));
#else
  return (a & low_half) * factor;
#endif
}

// The 64-bit products of the words, in two 32-bit halves.
[[gnu::always_inline]] inline void multiply(const Words& a, std::uint32_t factor, Words& high,
                                            Words& low) {
  const auto words = reinterpret_cast<Wide>(a);
  const Wide even = products_of_low_halves(words, factor);
  const Wide odd = products_of_low_halves(words >> 32, factor);
  high = reinterpret_cast<Words>(even >> 32 | (odd & ~low_half));
  low = reinterpret_cast<Words>((even & low_half) | odd << 32);
}

}  // namespace

template <>
PhiloxWords philox_blocks_at<lowest_level>(std::uint64_t seed, std::uint64_t stream,
                                           std::uint64_t position) {
  PhiloxWords result;
  for (std::size_t first = 0; first < philox_lanes; first += lanes) {
    Words words[4] = {{}, {}, Words{} + low_word(stream), Words{} + high_word(stream)};
    for (std::size_t l = 0; l < lanes; ++l) {
      words[0][l] = low_word(position + first + l);
      words[1][l] = high_word(position + first + l);
    }
    philox_rounds(words, seed, multiply);
    for (std::size_t w = 0; w < 4; ++w)
      std::memcpy(result[w].data() + first, &words[w], sizeof words[w]);
  }
  return result;
}

}  // namespace reel::kernels
