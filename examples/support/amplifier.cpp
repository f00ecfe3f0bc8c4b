#include "amplifier.h"

#include <cmath>
#include <vector>

#include <reel/autograd/ops.h>

namespace reel::examples {

Recording record(Index samples, Rng& rng) {
  constexpr Index pluck = 400;
  std::vector<float> dry, wet;
  double phase = 0, pitch = 0, loudness = 0, low = 0, level = 0;
  for (Index i = 0; i < samples; ++i) {
    if (i % pluck == 0) {
      pitch = 0.02 + 0.1 * rng.uniform();
      loudness = 0.2 + 0.8 * rng.uniform();
    }
    phase += pitch;
    loudness *= 0.995;
    const double x = loudness * (std::sin(phase) + 0.4 * std::sin(2.01 * phase));
    low += 0.3 * (x - low);
    level += 0.02 * (std::abs(x) - level);
    dry.push_back(static_cast<float>(x));
    wet.push_back(static_cast<float>(std::tanh(8 * low / (1 + 4 * level))));
  }
  return {tensor({samples, 1}, dry), tensor({samples, 1}, wet)};
}

Recording draw(const Recording& from, Index steps, Index rows, Rng& rng) {
  const auto places = static_cast<std::uint64_t>(from.dry.size(0) - steps + 1);
  Tensors dry, wet;
  for (Index row = 0; row < rows; ++row) {
    const Index at = static_cast<Index>(rng.integer(places));
    dry.push_back(slice(from.dry, 0, at, at + steps));
    wet.push_back(slice(from.wet, 0, at, at + steps));
  }
  return {stack(dry, 1), stack(wet, 1)};
}

}  // namespace reel::examples
