#include <reel/nn/functional_call.h>

#include <fmt/format.h>

#include <algorithm>

#include <string>
#include <vector>

#include <reel/autograd/message.h>

namespace reel::nn {

Substitution::Values values_in_place(const Params& params, const NamedTensors& values, Site site) {
  Substitution::Values found;
  params.each([&](const auto& entry) {
    if (const auto value = values.tensors.find(entry->name); value != values.tensors.end())
      found.emplace_back(entry, value->second);
  });
  for (const auto& [name, reason] : values.unread)
    throw ValueError(fmt::format("functional_call: the tensor {}: {}", printable(name, 80), reason),
                     site);
  if (found.size() == values.tensors.size()) return found;
  std::vector<std::string> names;
  params.each([&](const auto& entry) { names.push_back(entry->name); });
  for (const auto& [name, value] : values.tensors)
    if (std::ranges::find(names, name) == names.end())
      throw ValueError(fmt::format("functional_call: there is no parameter {}{}",
                                   printable(name, 80), suggestion(name, names)),
                       site);
  return found;
}

}  // namespace reel::nn
