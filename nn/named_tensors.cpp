#include <reel/nn/named_tensors.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <vector>

namespace reel::nn {
namespace {

// "a, b, c and 5 more".
std::string listed(const std::vector<std::string_view>& names) {
  constexpr std::size_t shown = 3;
  const std::size_t count = std::min(names.size(), shown);
  std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + count, ", "));
  if (names.size() > count) text += fmt::format(" and {} more", names.size() - count);
  return text;
}

void check_names(const NamedTensors& source, const Params& params, const std::string& place) {
  std::vector<std::string_view> missing, surplus;
  std::set<std::string_view> wanted;
  params.each([&](const auto& entry) {
    wanted.insert(entry->name);
    if (!source.tensors.contains(entry->name)) missing.push_back(entry->name);
  });
  for (const auto& [name, value] : source.tensors)
    if (!wanted.contains(name)) surplus.push_back(name);
  if (!missing.empty())
    throw ValueError("load_params: the model's parameters " + listed(missing) +
                     " are not among the tensors; was it built with the same settings? (" + place +
                     ")");
  if (!surplus.empty())
    throw ValueError(
        "load_params: the tensors " + listed(surplus) +
        " belong to no parameter of the model; was it built with the same settings? (" + place +
        ")");
}

void check_kind(const Tensor& value, const ParamEntry& entry, const std::string& place) {
  if (value.shape() != entry.value.shape())
    throw ShapeError(fmt::format("load_params: {} has shape {}, but the model's parameter {} ({})",
                                 entry.name, value.shape().str(), entry.value.shape().str(),
                                 place));
  if (value.dtype() != entry.value.dtype())
    throw DTypeError(fmt::format(
        "load_params: {} is {}, but the model's parameter {}; build the model in the same dtype "
        "({})",
        entry.name, name_of(value.dtype()), name_of(entry.value.dtype()), place));
}

}  // namespace

const Tensor& NamedTensors::operator[](std::string_view name) const {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw ValueError(fmt::format("there is no tensor {}", name));
  return found->second;
}

NamedTensors NamedTensors::part(std::string_view prefix) const {
  NamedTensors result;
  for (auto i = tensors.lower_bound(prefix); i != tensors.end() && i->first.starts_with(prefix);
       ++i)
    result.tensors.emplace_hint(result.tensors.end(), i->first.substr(prefix.size()), i->second);
  return result;
}

void NamedTensors::insert(std::string_view prefix, const NamedTensors& other) {
  std::map<std::string, Tensor, std::less<>> added;
  for (const auto& [name, value] : other.tensors) {
    const auto place = added.emplace_hint(added.end(), fmt::format("{}{}", prefix, name), value);
    if (tensors.contains(place->first))
      throw ValueError(fmt::format("there is a tensor {} already", place->first));
  }
  tensors.merge(added);
}

NamedTensors from_params(const Params& params) {
  NamedTensors result;
  params.each([&](const auto& entry) { result.tensors.emplace(entry->name, entry->value); });
  return result;
}

void load_params(const NamedTensors& source, const Params& params, Site site) {
  const std::string place = SiteScope::resolve(site).str();
  check_names(source, params, place);
  params.each([&](const auto& entry) { check_kind(source[entry->name], *entry, place); });
  params.each([&](const auto& entry) { Param(entry).set(source[entry->name]); });
}

}  // namespace reel::nn
