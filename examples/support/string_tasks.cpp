#include "string_tasks.h"

#include <fmt/format.h>

#include <array>

namespace reel::examples {
namespace {

StringPair reversal(Rng& rng) {
  std::string text;
  for (Index n = 3 + rng.integer(10); n > 0; --n) text += static_cast<char>('a' + rng.integer(26));
  return {text, {text.rbegin(), text.rend()}};
}

StringPair date(Rng& rng) {
  static constexpr std::array months{"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};
  const Index year = 1900 + rng.integer(200), month = rng.integer(12), day = 1 + rng.integer(28);
  const std::string name = months[static_cast<std::size_t>(month)];
  const std::array written{
      fmt::format("{} {} {}", day, name, year), fmt::format("{} {}, {}", name, day, year),
      fmt::format("{} {}. {}", day, name.substr(0, 3), year),
      fmt::format("{}/{}/{}", month + 1, day, year), fmt::format("{}.{}.{}", day, month + 1, year)};
  return {written[static_cast<std::size_t>(rng.integer(5))],
          fmt::format("{}-{:02}-{:02}", year, month + 1, day)};
}

}  // namespace

StringTask::StringTask(std::string name, Rng& rng) : name_(std::move(name)) {
  unseen_ = draw(1000, rng);
  for (const StringPair& pair : unseen_) set_aside_.insert(pair.to);
}

std::vector<StringPair> StringTask::draw(Index count, Rng& rng) const {
  std::vector<StringPair> pairs;
  while (std::ssize(pairs) < count) {
    StringPair pair = name_ == "reverse" ? reversal(rng) : date(rng);
    if (!set_aside_.contains(pair.to)) pairs.push_back(std::move(pair));
  }
  return pairs;
}

double StringTask::share_right(const std::vector<std::string>& found) const {
  double right = 0;
  for (std::size_t i = 0; i < found.size(); ++i) right += found[i] == unseen_[i].to ? 1 : 0;
  return right / static_cast<double>(found.size());
}

html::HeatMap map_of(const StringPair& pair, const Tensor& weights) {
  html::HeatMap map{.title = fmt::format("{} -> {}", pair.from, pair.to), .values = weights};
  for (const char c : pair.to) map.rows.emplace_back(1, c);
  map.rows.emplace_back("end");
  for (const char c : pair.from) map.columns.emplace_back(1, c);
  return map;
}

StringBatch make_batch(std::span<const StringPair> pairs) {
  std::vector<std::vector<std::int32_t>> from, inputs, outputs;
  for (const StringPair& pair : pairs) {
    from.emplace_back(pair.from.begin(), pair.from.end());
    outputs.emplace_back(pair.to.begin(), pair.to.end());
    inputs.push_back(outputs.back());
    inputs.back().insert(inputs.back().begin(), string_end);
    outputs.back().push_back(string_end);
  }
  return {datasets::pad(from, string_end), datasets::pad(inputs, string_end),
          datasets::pad(outputs, string_end)};
}

}  // namespace reel::examples
