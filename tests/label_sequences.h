#pragma once

#include <functional>
#include <vector>

#include <reel/autograd/rng.h>

// Sequences of labels for the tests of losses over them.
namespace reel::testing {

using LabelSequence = std::vector<std::int32_t>;

/// Of 1 .. most.
inline Tensor random_labels(const Shape& shape, Index most, std::uint64_t seed) {
  Rng rng(seed);
  Tensor labels(shape, i32);
  for (std::int32_t& label : labels.begin_update<std::int32_t>())
    label = static_cast<std::int32_t>(1 + rng.integer(most));
  return labels;
}

/// Calls f(y) for all sequences of n labels out of k.
inline void each_sequence(Index n, Index k, const std::function<void(const LabelSequence&)>& f) {
  LabelSequence y(static_cast<std::size_t>(n));
  const std::function<void(std::size_t)> choose = [&](std::size_t t) {
    if (t == y.size()) return f(y);
    for (y[t] = 0; y[t] < k; ++y[t]) choose(t + 1);
  };
  choose(0);
}

}  // namespace reel::testing
