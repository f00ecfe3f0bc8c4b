#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

/// What Linux's control groups grant of the processor, from the text of their files.
namespace reel::kernels {

/// The most threads there may be; as a quota, no limit.
inline constexpr int all_cores = 1024;

/// The word at the beginning of the text, blanks left out; takes it off the text.
inline std::string_view take_word(std::string_view& text) {
  constexpr std::string_view blanks = " \t\r\n";
  text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(blanks));
  text.remove_prefix(word.size());
  return word;
}

/// The number that a word is; 0 where it is none.
inline double number_in(std::string_view word) {
  double number = 0;
  const char* const end = word.data() + word.size();
  const auto [next, error] = std::from_chars(word.data(), end, number);
  return error == std::errc() && next == end && std::isfinite(number) ? number : 0;
}

/// Whole cores that a quota of the CFS grants, rounded up; all where it sets no limit.
inline int cores_of_quota(double quota, double period) {
  if (!(quota > 0 && period > 0)) return all_cores;
  return static_cast<int>(std::min(std::ceil(quota / period), double{all_cores}));
}

/// The same of cpu.max, as in "150000 100000" or "max 100000". A text of which nothing can be made,
/// such as that of a missing file, sets no limit.
inline int cores_of_cpu_max(std::string_view text) {
  const double quota = number_in(take_word(text));
  return cores_of_quota(quota, number_in(take_word(text)));
}

/// The same of the first version's cpu.cfs_quota_us, where -1 is no limit, and cpu.cfs_period_us.
inline int cores_of_cfs(std::string_view quota, std::string_view period) {
  return cores_of_quota(number_in(take_word(quota)), number_in(take_word(period)));
}

/// A control group that may limit the processor: its path below where its version is mounted.
struct ControlGroup {
  int version;
  std::string path;
};

/// The group that a line of /proc/self/cgroup names, as "4:cpu,cpuacct:/path" or "0::/path"; none
/// for groups of other controllers.
inline std::optional<ControlGroup> control_group_of(std::string_view line) {
  const std::size_t first = line.find(':');
  const std::size_t second = first == line.npos ? first : line.find(':', first + 1);
  if (second == line.npos || !line.substr(second + 1).starts_with('/')) return std::nullopt;
  const std::string_view controllers = line.substr(first + 1, second - first - 1);
  const std::string path(line.substr(second + 1));
  if (controllers.empty()) return ControlGroup{2, path};
  for (std::string_view rest = controllers; !rest.empty();) {
    const std::string_view controller = rest.substr(0, rest.find(','));
    if (controller == "cpu") return ControlGroup{1, path};
    rest.remove_prefix(std::min(controller.size() + 1, rest.size()));
  }
  return std::nullopt;
}

/// The least that `cores_of` gives for the directories from the group's own up to the root: a quota
/// counts wherever it is set between them. In a container the path may be that of the host; then
/// only the root can be seen here.
template <class CoresOf>
int least_cores(const std::string& mount, std::string_view path, CoresOf cores_of) {
  int cores = cores_of(mount);
  for (; path.size() > 1; path = path.substr(0, path.rfind('/')))
    cores = std::min(cores, cores_of(mount + std::string(path)));
  return cores;
}

}  // namespace reel::kernels
