#include <reel/autograd/rng.h>

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include <reel/autograd/hash.h>
#include <reel/autograd/kernels/philox.h>
#include <reel/autograd/kernels/vector_math.h>

namespace reel {
namespace {

using kernels::high_word;
using kernels::low_word;
using kernels::PhiloxWords;
using kernels::unit;

// The cosine variant of Box-Muller.
[[gnu::always_inline]] inline double normal_of(std::uint32_t a, std::uint32_t b, std::uint32_t c,
                                               std::uint32_t d) {
  const double radius = std::sqrt(-2 * kernels::vlog(1 - unit(a, b)));
  return radius * kernels::vcos_turns(unit(c, d));
}

// The number of 2^64 that words have, to the last place of a float; `high` is below 2^31.
[[gnu::always_inline]] inline float fraction(std::uint32_t high, std::uint32_t low) {
  const auto number = [](std::uint32_t x) __attribute__((always_inline)) {
    return static_cast<float>(static_cast<std::int32_t>(x));  // one instruction, if it is signed
  };
  return number(high) * 0x1p-32F + number(low >> 1 | 1) * 0x1p-63F;
}

// sqrt(-2 ln(1 - u)) for u = (a, b) / 2^64.
[[gnu::always_inline]] inline float radius_of(std::uint32_t a, std::uint32_t b) {
  // Of u and 1 - u the smaller has all of its digits; the words of 1 - u are the complements.
  const bool upper = static_cast<std::int32_t>(a) < 0;
  const std::uint32_t mask = upper ? ~std::uint32_t{0} : 0;
  const float smaller = fraction(a ^ mask, b ^ mask);
  const auto [n, f] = kernels::detail::normalized(upper ? smaller : 1 - smaller);
  const float x = n == 0 ? -smaller : f;
  const float series = kernels::detail::horner(x, -0x1.37f818p-4L, 0x1.084b26p-3L, -0x1.0f43d6p-3L,
                                               0x1.227114p-3L, -0x1.5425bp-3L, 0x1.99a3fep-3L,
                                               -0x1.000432p-2L, 0x1.55555p-2L, -0x1.fffff8p-2L);
  const float log = kernels::detail::multiply_add(x * x, series, x);
  return std::sqrt(-2 * kernels::detail::multiply_add(static_cast<float>(n), 0.69314718F, log));
}

// cos(2 pi v) for v = (c, d) / 2^64.
[[gnu::always_inline]] inline float cosine_of(std::uint32_t c, std::uint32_t d) {
  // The nearest quarter is in the upper two bits of the sum, what remains in the lower 30 of c.
  const std::uint32_t quarter = c + (std::uint32_t{1} << 29);
  const auto rest = static_cast<float>(static_cast<std::int32_t>(c << 2) >> 2);
  const auto digits = static_cast<float>(static_cast<std::int32_t>(d >> 1));
  const float angle = (rest + digits * 0x1p-31F) * 1.4629180792671596e-9F;  // 2 pi / 2^32
  const float z = angle * angle;
  using kernels::detail::horner;
  const float sine = kernels::detail::multiply_add(
      angle * z, horner(z, -0x1.9956b8p-13L, 0x1.11077ep-7L, -0x1.555546p-3L), angle);
  const float cosine = horner(z, 0x1.99e9f4p-16L, -0x1.6c0c2cp-10L, 0x1.55554ap-5L, -0.5L, 1.0L);
  const float value = quarter & 0x40000000 ? sine : cosine;
  const std::uint32_t sign = (quarter + 0x40000000) & 0x80000000;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ sign);
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
    kernels::at_level([&] {
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
  std::uint32_t words[4] = {counter[0], counter[1], counter[2], counter[3]};
  const auto multiply = [](std::uint32_t a, std::uint32_t factor, std::uint32_t& high,
                           std::uint32_t& low) {
    const std::uint64_t product = std::uint64_t{factor} * a;
    high = high_word(product);
    low = low_word(product);
  };
  kernels::philox_rounds(words, std::uint64_t{key[1]} << 32 | key[0], multiply);
  return std::to_array(words);
}

kernels::PhiloxWords kernels::philox_blocks(std::uint64_t seed, std::uint64_t stream,
                                            std::uint64_t position) {
  return with_level([=](auto level) { return philox_blocks_at<level()>(seed, stream, position); });
}

void kernels::philox_words(std::uint64_t seed, std::uint64_t stream, std::uint64_t position,
                           std::size_t blocks, std::uint32_t* to) {
  with_level([=](auto level) { philox_words_at<level()>(seed, stream, position, blocks, to); });
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
                  if constexpr (std::is_same_v<T, double>)
                    return mean + deviation * normal_of(a, b, c, d);
                  else  // the same number, but for its last places
                    return kernels::detail::multiply_add(static_cast<T>(deviation),
                                                         radius_of(a, b) * cosine_of(c, d),
                                                         static_cast<T>(mean));
                });
}

}  // namespace reel
