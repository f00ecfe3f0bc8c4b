#include <reel/nn/selection.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include <reel/autograd/message.h>

namespace reel::nn {
namespace {

// How much of a pattern stands for this character, beginning with what may be "?", "[...]" or
// "\c"; 0 if it stands for another.
std::size_t length_for(std::string_view pattern, char c) {
  if (pattern[0] == '?') return 1;
  if (pattern[0] == '\\' && pattern.size() > 1) return pattern[1] == c ? 2 : 0;
  // A bracket that comes first in a set is one of it.
  const bool inverted = pattern.size() > 1 && (pattern[1] == '!' || pattern[1] == '^');
  const std::size_t first = inverted ? 2 : 1, end = pattern.find(']', first + 1);
  if (pattern[0] != '[' || end == std::string_view::npos) return pattern[0] == c ? 1 : 0;
  bool found = false;
  for (std::size_t i = first; i < end; ++i) {
    const bool is_range = i + 2 < end && pattern[i + 1] == '-';
    const char last = pattern[is_range ? i + 2 : i];
    found = found || (pattern[i] <= c && c <= last);
    if (is_range) i += 2;
  }
  return found != inverted ? end + 1 : 0;
}

// As fnmatch(3) without flags, which Windows does not have. Where a part after a star does not
// match, the last star takes one character more.
bool matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0;
  std::optional<std::size_t> after_star;
  std::size_t retry = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      retry = n;
      continue;
    }
    const std::size_t length = p < pattern.size() ? length_for(pattern.substr(p), name[n]) : 0;
    if (length == 0 && !after_star) return false;
    p = length > 0 ? p + length : *after_star;
    n = length > 0 ? n + 1 : ++retry;
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace

Selection::Selection(std::string_view pattern)
    : pattern_(pattern), predicate_([wanted = std::string(pattern)](const Param& param) {
        return matches(wanted, param.name());
      }) {}

void Selection::require_some(const Params& params, std::string_view who) const {
  const std::vector<Param> list = params.list();
  if (std::ranges::any_of(list, [&](const Param& param) { return contains(param); })) return;
  if (!pattern_)
    throw ValueError(fmt::format("{}: its predicate selects none of the parameters", who),
                     SiteScope::current());
  std::vector<std::string> names;
  for (const Param& param : list) names.push_back(param.name());
  throw ValueError(fmt::format("{}: no parameter has a name like {}{}", who, in_quotes(*pattern_),
                               suggestion(*pattern_, names)),
                   SiteScope::current());
}

}  // namespace reel::nn
