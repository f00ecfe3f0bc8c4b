#include <reel/datasets/labels.h>

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace reel::datasets {

Labels::Labels(std::vector<std::string> names, Site site) : names_(std::move(names)) {
  if (names_.empty()) throw ValueError("there are no labels", site);
  std::set<std::string_view> seen;
  for (const std::string& name : names_) {
    if (name.empty()) throw ValueError("a label is empty", site);
    if (!seen.insert(name).second)
      throw ValueError(fmt::format("the label '{}' is given twice", name), site);
  }
}

Labels Labels::of(std::span<const std::vector<std::string>> sequences, Site site) {
  std::set<std::string> names;
  for (const auto& labels : sequences) names.insert(labels.begin(), labels.end());
  return Labels({names.begin(), names.end()}, site);
}

std::int32_t Labels::number(std::string_view name, Site site) const {
  const auto found = std::ranges::find(names_, name);
  if (found == names_.end())
    throw ValueError(fmt::format("'{}' is no label; there are {}", name, fmt::join(names_, ", ")),
                     site);
  return static_cast<std::int32_t>(found - names_.begin());
}

std::vector<std::int32_t> Labels::encode(std::span<const std::string> names, Site site) const {
  std::vector<std::int32_t> numbers;
  for (const std::string& name : names) numbers.push_back(number(name, site));
  return numbers;
}

const std::string& Labels::name(Arg<Index> number, Site site) const {
  if (number < 0 || number >= size())
    throw ValueError(fmt::format("there is no label {}; there are {}", Index(number), size()),
                     site);
  return names_[static_cast<std::size_t>(Index(number))];
}

std::vector<std::string> Labels::decode(std::span<const std::int32_t> numbers, Site site) const {
  std::vector<std::string> names;
  for (const std::int32_t number : numbers) names.push_back(name(number, site));
  return names;
}

}  // namespace reel::datasets
