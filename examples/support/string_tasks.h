#pragma once

#include <set>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/datasets/pad.h>

#include "heat_map.h"

/// Tasks in which a string becomes another one.
namespace reel::examples {

struct StringPair {
  std::string from, to;
};

/// Strings of 3 to 12 letters and the same backwards ("reverse"), or dates of 1900 to 2099 in one
/// of the forms in which people write them and in that of ISO 8601 ("dates").
class StringTask {
 public:
  /// Sets pairs aside for testing.
  StringTask(std::string name, Rng& rng);

  /// 1000 pairs, which `draw` never gives.
  const std::vector<StringPair>& unseen() const { return unseen_; }
  std::vector<StringPair> draw(Index count, Rng& rng) const;
  /// The share of the unseen ones of which this is exactly the result.
  double share_right(const std::vector<std::string>& found) const;

 private:
  std::string name_;
  std::vector<StringPair> unseen_;
  std::set<std::string> set_aside_;
};

/// Symbols are bytes, and this one, which ends a string and begins what a decoder reads.
constexpr std::int32_t string_end = 0;
constexpr Index string_symbols = 128;

/// What an encoder reads, what its decoder does, and what that is to write: the string and its end.
struct StringBatch {
  datasets::Padded from, inputs, outputs;
};

/// Of weights [to and its end, from].
html::HeatMap map_of(const StringPair& pair, const Tensor& weights);

StringBatch make_batch(std::span<const StringPair> pairs);

}  // namespace reel::examples
