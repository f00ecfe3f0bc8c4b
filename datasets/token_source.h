#pragma once

#include <cstdint>
#include <span>

#include <reel/autograd/shape.h>

namespace reel::datasets {

/// Tokens by their numbers, wherever they are kept: what Windows takes where tokens are not in
/// memory.
class TokenSource {
 public:
  virtual ~TokenSource() = default;

  /// How many tokens there are.
  virtual Index size() const = 0;
  /// Writes tokens begin, begin + 1, ... to `to`, all of which exist. May be called on several
  /// threads at once.
  virtual void read(Index begin, std::span<std::int32_t> to) const = 0;
};

}  // namespace reel::datasets
