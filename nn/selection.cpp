#include <reel/nn/selection.h>

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <vector>

#include <reel/autograd/message.h>

namespace reel::nn {

Selection::Selection(std::string_view pattern)
    : pattern_(pattern), predicate_([wanted = std::string(pattern)](const Param& param) {
        return fnmatch(wanted.c_str(), param.name().c_str(), 0) == 0;
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
