#include <reel/autograd/rng.h>

#include <fmt/format.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <reel/autograd/hash.h>
#include <reel/autograd/kernels/philox.h>
#include <reel/autograd/kernels/vector_math.h>

namespace reel {
namespace {

using kernels::PhiloxWords;
using kernels::unit;

constexpr std::uint32_t low_word(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
constexpr std::uint32_t high_word(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

constexpr std::uint32_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
constexpr std::uint32_t key_step0 = 0x9E3779B9, key_step1 = 0xBB67AE85;

// The words of eight blocks, in vector lanes.
using Words = std::uint32_t __attribute__((vector_size(32)));

// The 64-bit products, in two 32-bit halves.
[[gnu::always_inline]] inline void multiply(const Words& a, std::uint32_t factor, Words& high,
                                            Words& low) {
#if defined(__AVX2__)
  // Compilers split a multiplication even if they know that its factors have 32 bits.
  const __m256i factors = _mm256_set1_epi64x(factor), words = reinterpret_cast<__m256i>(a);
  const auto even = reinterpret_cast<Words>(_mm256_mul_epu32(words, factors));
  const auto odd = reinterpret_cast<Words>(_mm256_mul_epu32(_mm256_srli_epi64(words, 32), factors));
  high = __builtin_shufflevector(even, odd, 1, 9, 3, 11, 5, 13, 7, 15);
  low = __builtin_shufflevector(even, odd, 0, 8, 2, 10, 4, 12, 6, 14);
#else
  for (int l = 0; l < 8; ++l) {
    const std::uint64_t product = std::uint64_t{factor} * a[l];
    high[l] = high_word(product);
    low[l] = low_word(product);
  }
#endif
}

// The cosine variant of Box-Muller.
[[gnu::always_inline]] inline double normal_of(std::uint32_t a, std::uint32_t b, std::uint32_t c,
                                               std::uint32_t d) {
  const double radius = std::sqrt(-2 * kernels::vlog(1 - unit(a, b)));
  return radius * kernels::vcos_turns(unit(c, d));
}

// Draws a tensor: element i is `number` applied to the words of block i.
template <class Number>
Tensor filled(Rng& rng, const char* call, const Shape& shape, DType dtype, Site site,
              Number number) {
  constexpr Index lanes = kernels::philox_lanes;
  Tensor result = detail::new_tensor(call, shape, dtype, site);
  const Rng::State& at = rng.state();
  dispatch_real(dtype, [&]<class T>() {
    const std::span<T> all = result.begin_update<T>();
    const Index n = std::ssize(all);
    for (Index begin = 0; begin < n; begin += lanes) {
      const PhiloxWords words = kernels::philox_blocks(
          at.seed, at.stream, at.position + static_cast<std::uint64_t>(begin));
      std::array<T, lanes> drawn;
      for (std::size_t l = 0; l < lanes; ++l)
        drawn[l] =
            number.template operator()<T>(words[0][l], words[1][l], words[2][l], words[3][l]);
      std::copy_n(drawn.begin(), std::min(lanes, n - begin), all.begin() + begin);
    }
  });
  rng.skip(static_cast<std::uint64_t>(shape.size()));
  return result;
}

// The smallest and largest T in [low, high), or low if there is none.
template <class T>
std::array<T, 2> within(double low, double high) {
  T least = static_cast<T>(low), largest = static_cast<T>(high);
  if (static_cast<double>(least) < low)
    least = std::nextafter(least, std::numeric_limits<T>::infinity());
  if (static_cast<double>(largest) >= high)
    largest = std::nextafter(largest, -std::numeric_limits<T>::infinity());
  return {least, std::max(least, largest)};
}

// The largest number of a dtype that a call can draw.
double largest_of(const char* call, DType dtype, Site site) {
  if (dtype == i32)
    throw DTypeError(fmt::format("{}: random numbers are f32 or f64, not i32", call), site);
  return dtype == f32 ? double{std::numeric_limits<float>::max()}
                      : std::numeric_limits<double>::max();
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p = std::uint64_t{multiplier0} * counter[0];
    const std::uint64_t q = std::uint64_t{multiplier1} * counter[2];
    counter = {high_word(q) ^ counter[1] ^ key[0], low_word(q), high_word(p) ^ counter[3] ^ key[1],
               low_word(p)};
    key[0] += key_step0;
    key[1] += key_step1;
  }
  return counter;
}

kernels::PhiloxWords kernels::philox_blocks(std::uint64_t seed, std::uint64_t stream,
                                            std::uint64_t position) {
  PhiloxWords words;
  for (std::size_t first = 0; first < philox_lanes; first += 8) {
    Words c0, c1, c2 = Words{} + low_word(stream), c3 = Words{} + high_word(stream);
    for (std::size_t l = 0; l < 8; ++l) {
      c0[l] = low_word(position + first + l);
      c1[l] = high_word(position + first + l);
    }
    std::uint32_t key0 = low_word(seed), key1 = high_word(seed);
    for (int round = 0; round < 10; ++round, key0 += key_step0, key1 += key_step1) {
      Words p_high, p_low, q_high, q_low;
      multiply(c0, multiplier0, p_high, p_low);
      multiply(c2, multiplier1, q_high, q_low);
      c0 = q_high ^ c1 ^ key0;
      c1 = q_low;
      c2 = p_high ^ c3 ^ key1;
      c3 = p_low;
    }
    std::size_t w = 0;
    for (const Words* word : {&c0, &c1, &c2, &c3})
      std::memcpy(&words[w++][first], word, sizeof *word);
  }
  return words;
}

Rng Rng::stream(std::string_view name) const {
  // Hashes the whole path, so that order and repetition matter.
  const auto path = std::bit_cast<std::array<char, 8>>(state_.stream);
  return Rng(state_.seed, fnv1a(name, fnv1a({path.data(), state_.stream == 0 ? 0 : path.size()})));
}

std::array<std::uint32_t, 4> Rng::next() {
  const State at = state_;
  ++state_.position;
  return philox(
      {low_word(at.position), high_word(at.position), low_word(at.stream), high_word(at.stream)},
      {low_word(at.seed), high_word(at.seed)});
}

double Rng::uniform() {
  const auto bits = next();
  return unit(bits[0], bits[1]);
}

double Rng::normal() {
  const auto bits = next();
  return normal_of(bits[0], bits[1], bits[2], bits[3]);
}

Index Rng::integer(Arg<Index> n, Site site) {
  if (n <= 0)
    throw ValueError(
        fmt::format("Rng::integer: the number of choices must be positive, not {}", Index(n)),
        site);
  return std::min(static_cast<Index>(uniform() * static_cast<double>(n)), n - 1);
}

Tensor Rng::uniform(const Shape& shape, Arg<double> low, Arg<double> high, DType dtype, Site site) {
  const double limit = largest_of("Rng::uniform", dtype, site);
  if (!(low <= high && std::abs(low) <= limit && std::abs(high) <= limit &&
        std::isfinite(high - low)))
    throw ValueError(
        fmt::format(
            "Rng::uniform: low is {} and high is {}; they must be finite in {}, with low <= high",
            low, high, name_of(dtype)),
        site);
  const auto f32_range = within<float>(low, high);
  const auto f64_range = within<double>(low, high);
  const auto number = [=]<class T>(std::uint32_t a, std::uint32_t b, std::uint32_t, std::uint32_t) {
    const auto [least, largest] = std::get<std::array<T, 2>>(std::tuple(f32_range, f64_range));
    // The sum, or its conversion to T, may be rounded to a bound.
    const T x = static_cast<T>(low + (high - low) * unit(a, b));
    return x < least ? least : x > largest ? largest : x;
  };
  return filled(*this, "Rng::uniform", shape, dtype, site, number);
}

Tensor Rng::normal(const Shape& shape, Arg<double> mean, Arg<double> deviation, DType dtype,
                   Site site) {
  const double limit = largest_of("Rng::normal", dtype, site);
  const auto require = [&](const char* what, double value, double least) {
    if (!(value >= least && value <= limit))
      throw ValueError(fmt::format("Rng::normal: {} is {}, but has to be a finite number{} in {}",
                                   what, value, least == 0 ? " >= 0" : "", name_of(dtype)),
                       site);
  };
  require("mean", mean, -limit);
  require("deviation", deviation, 0);
  return filled(*this, "Rng::normal", shape, dtype, site,
                [=]<class T>(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
                  return static_cast<T>(mean + deviation * normal_of(a, b, c, d));
                });
}

}  // namespace reel
