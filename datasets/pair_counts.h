#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <reel/autograd/shape.h>

namespace reel::datasets {

/// Two adjacent symbols as one number.
constexpr std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

/// Words as symbols, with the places of every pair of adjacent ones: what training byte pairs
/// counts. A merge costs the places of its pair, however long the text.
///
/// The symbols of all different words stand in one array, each word weighted by how often it
/// occurs. A merged symbol keeps the place of its left part; the right one becomes a gap, which
/// `next` and `previous` pass by.
class PairCounts {
 public:
  struct Pair {
    std::int32_t left, right;
  };

  /// Words of bytes in the order of their first occurrence, with their counts.
  PairCounts(const std::vector<std::string_view>& words, const std::vector<Index>& counts);

  /// The pair that occurs most often, the first one of several; none if no pair occurs twice.
  std::optional<Pair> most_frequent();
  /// Drops a pair from the counts that is never to be merged.
  void ignore(Pair pair) { pairs_.erase(pair_key(pair.left, pair.right)); }
  /// Replaces the pair by a new symbol everywhere, in each word from left to right.
  void merge(Pair pair, std::int32_t symbol);

 private:
  static constexpr std::int32_t none = -1;

  struct Places {
    Index count = 0;
    std::vector<std::int32_t> at = {};  // ascending places of left symbols; some no longer apply
    std::size_t first = 0;              // of those that may still apply
  };
  // A pair as it was when it was put into the queue; its count can only have fallen since, and its
  // first place only have moved on.
  struct Candidate {
    Index count;
    std::int32_t place;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : place > other.place;
    }
    bool operator==(const Candidate& other) const {
      return count == other.count && place == other.place;
    }
  };

  bool is_at(Pair pair, std::int32_t place) const;
  void add(std::int32_t place, std::int32_t next_place);
  void remove(std::int32_t place, std::int32_t next_place);
  std::optional<Candidate> candidate(Pair pair);

  std::vector<std::int32_t> symbols_, next_, previous_;
  std::vector<std::int32_t> word_of_;  // the number of the word that a symbol belongs to
  std::vector<Index> counts_;          // of the words
  std::unordered_map<std::uint64_t, Places> pairs_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace reel::datasets
