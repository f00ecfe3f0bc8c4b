#include <reel/autograd/rng.h>

#include <cmath>
#include <numbers>

namespace reel {
namespace {

double unit(std::uint32_t high, std::uint32_t low) {
  return static_cast<double>((std::uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

template <class Draw>
Tensor filled(const Shape& shape, DType dtype, Draw draw) {
  Tensor result(shape, dtype);
  dispatch_real(dtype, [&]<class T>() {
    for (T& x : result.edit<T>()) x = static_cast<T>(draw());
  });
  return result;
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t q = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<std::uint32_t>(q >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(q),
        static_cast<std::uint32_t>(p >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

Rng Rng::stream(std::string_view name) const {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return Rng(state_.seed, state_.stream ^ hash);
}

std::array<std::uint32_t, 4> Rng::next() {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  const auto block =
      philox({low(state_.position), high(state_.position), low(state_.stream), high(state_.stream)},
             {low(state_.seed), high(state_.seed)});
  ++state_.position;
  return block;
}

double Rng::uniform() {
  const auto bits = next();
  return unit(bits[0], bits[1]);
}

double Rng::normal() {
  const auto bits = next();
  const double radius = std::sqrt(-2 * std::log(1 - unit(bits[0], bits[1])));
  return radius * std::cos(2 * std::numbers::pi * unit(bits[2], bits[3]));
}

Index Rng::integer(Index n) {
  if (n <= 0) throw ValueError("Rng::integer: the number of choices must be positive");
  return std::min(static_cast<Index>(uniform() * static_cast<double>(n)), n - 1);
}

Tensor Rng::uniform(const Shape& shape, double low, double high, DType dtype) {
  return filled(shape, dtype, [&] { return low + (high - low) * uniform(); });
}

Tensor Rng::normal(const Shape& shape, double mean, double deviation, DType dtype) {
  return filled(shape, dtype, [&] { return mean + deviation * normal(); });
}

}  // namespace reel
