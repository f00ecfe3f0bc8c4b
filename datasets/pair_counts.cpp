#include <reel/datasets/pair_counts.h>

#include <utility>

namespace reel::datasets {

PairCounts::PairCounts(const std::vector<std::string_view>& words, const std::vector<Index>& counts)
    : counts_(counts) {
  for (std::size_t w = 0; w < words.size(); ++w)
    for (std::size_t i = 0; i < words[w].size(); ++i) {
      const auto place = static_cast<std::int32_t>(symbols_.size());
      symbols_.push_back(static_cast<unsigned char>(words[w][i]));
      previous_.push_back(i == 0 ? none : place - 1);
      next_.push_back(i + 1 == words[w].size() ? none : place + 1);
      word_of_.push_back(static_cast<std::int32_t>(w));
    }
  for (std::size_t place = 0; place < symbols_.size(); ++place)
    add(static_cast<std::int32_t>(place), next_[place]);
  for (const auto& [key, places] : pairs_)
    queue_.push({places.count,
                 places.at.front(),
                 {static_cast<std::int32_t>(key >> 32), static_cast<std::int32_t>(key)}});
}

std::optional<PairCounts::Pair> PairCounts::most_frequent() {
  while (!queue_.empty()) {
    const Candidate best = queue_.top();
    const auto now = candidate(best.pair);
    if (now && *now == best) return best.count < 2 ? std::nullopt : std::optional(best.pair);
    queue_.pop();
    if (now) queue_.push(*now);
  }
  return std::nullopt;
}

void PairCounts::merge(Pair pair, std::int32_t symbol) {
  const auto found = pairs_.find(pair_key(pair.left, pair.right));
  const Places places = std::move(found->second);
  std::vector<std::int32_t> merged;
  for (std::size_t i = places.first; i < places.at.size(); ++i) {
    const std::int32_t left = places.at[i];
    if (!is_at(pair, left)) continue;
    const std::int32_t before = previous_[left], right = next_[left], after = next_[right];
    remove(before, left);
    remove(right, after);
    symbols_[left] = symbol;
    symbols_[right] = none;
    next_[left] = after;
    if (after != none) previous_[after] = left;
    add(before, left);
    add(left, after);
    merged.push_back(left);
  }
  pairs_.erase(pair_key(pair.left, pair.right));
  // Every pair with the new symbol, at its first place.
  const auto enqueue = [&](std::int32_t place) {
    if (place == none || next_[place] == none) return;
    const auto now = candidate({symbols_[place], symbols_[next_[place]]});
    if (now && now->place == place) queue_.push(*now);
  };
  for (const std::int32_t place : merged) {
    const std::int32_t before = previous_[place];
    if (before != none && symbols_[before] != symbol) enqueue(before);
    enqueue(place);
  }
}

bool PairCounts::is_at(Pair pair, std::int32_t place) const {
  const std::int32_t next = next_[place];
  return symbols_[place] == pair.left && next != none && symbols_[next] == pair.right;
}

void PairCounts::add(std::int32_t place, std::int32_t next_place) {
  if (place == none || next_place == none) return;
  Places& places = pairs_[pair_key(symbols_[place], symbols_[next_place])];
  places.count += counts_[word_of_[place]];
  places.at.push_back(place);
}

void PairCounts::remove(std::int32_t place, std::int32_t next_place) {
  if (place == none || next_place == none) return;
  const auto found = pairs_.find(pair_key(symbols_[place], symbols_[next_place]));
  if (found != pairs_.end()) found->second.count -= counts_[word_of_[place]];
}

// The pair as it is now; none if it no longer occurs.
std::optional<PairCounts::Candidate> PairCounts::candidate(Pair pair) {
  const auto found = pairs_.find(pair_key(pair.left, pair.right));
  if (found == pairs_.end()) return std::nullopt;
  Places& places = found->second;
  while (places.first < places.at.size() && !is_at(pair, places.at[places.first])) ++places.first;
  if (places.first == places.at.size()) {
    pairs_.erase(found);
    return std::nullopt;
  }
  return Candidate{places.count, places.at[places.first], pair};
}

}  // namespace reel::datasets
