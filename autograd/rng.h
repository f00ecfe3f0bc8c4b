#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <reel/autograd/tensor.h>

namespace reel {

/// One block of the counter-based generator Philox4x32-10: 128 random bits for a 64-bit key and a
/// 128-bit counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key);

/// A random number generator whose whole state is three integers: the numbers at position p of
/// stream s of seed k are a pure function of (k, s, p), on every machine.
class Rng {
 public:
  /// The three integers.
  struct State {
    std::uint64_t seed = 0, stream = 0, position = 0;
    bool operator==(const State&) const = default;
  };

  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0) : state_{seed, stream, 0} {}
  explicit Rng(const State& state) : state_(state) {}

  /// An independent generator with the same seed, identified by a name: parameters draw from the
  /// stream of their name.
  Rng stream(std::string_view name) const;

  /// 128 random bits; advances the position by one.
  std::array<std::uint32_t, 4> next();
  /// Uniform in [0, 1), 53 bits.
  double uniform();
  /// Standard normal (Box-Muller).
  double normal();
  /// Uniform in 0 .. n-1. Throws ValueError unless n > 0.
  Index integer(Arg<Index> n, Site site = {});

  /// A tensor of independent draws: uniform in [low, high), or normal with a mean and a standard
  /// deviation. Throws DTypeError for i32, and ValueError unless these numbers are finite in the
  /// dtype, low <= high and the deviation is >= 0.
  Tensor uniform(const Shape& shape, Arg<double> low, Arg<double> high, DType dtype = f32,
                 Site site = {});
  /// The same, normal.
  Tensor normal(const Shape& shape, Arg<double> mean = 0, Arg<double> deviation = 1,
                DType dtype = f32, Site site = {});

  /// Advances by `blocks` positions, for a kernel that draws them itself.
  void skip(std::uint64_t blocks) { state_.position += blocks; }
  const State& state() const { return state_; }

 private:
  State state_;
};

}  // namespace reel
