#include <reel/nn/named_tensors.h>

#include <fmt/format.h>

#include <cmath>
#include <set>
#include <vector>

#include <reel/autograd/message.h>

namespace reel::nn {
namespace {

constexpr std::size_t longest = 80;  // of a name in a message

// Why a model's parameters may not be there: their names are others, or it is another model.
std::string reason_for(const std::vector<std::string>& missing,
                       const std::vector<std::string>& surplus) {
  for (const std::string& name : missing)
    if (const auto meant = nearest(name, surplus))
      return fmt::format("did you mean {}{}, or was the model built with other settings?", *meant,
                         missing.size() > 1 ? " for " + name : "");
  return "was it built with the same settings?";
}

void check_names(const NamedTensors& source, const Params& params, Site site) {
  std::vector<std::string> missing, surplus;
  std::set<std::string_view> wanted;
  params.each([&](const auto& entry) {
    wanted.insert(entry->name);
    if (const auto found = source.unread.find(entry->name); found != source.unread.end())
      throw ValueError(
          fmt::format("load_params: the tensor {}: {}", printable(entry->name), found->second),
          site);
    if (!source.tensors.contains(entry->name)) missing.push_back(printable(entry->name, longest));
  });
  const auto gather = [&](const auto& names) {
    for (const auto& [name, value] : names)
      if (!wanted.contains(name)) surplus.push_back(printable(name, longest));
  };
  gather(source.tensors);
  gather(source.unread);
  if (!missing.empty())
    throw ValueError(
        fmt::format("load_params: the model's parameters {} are not among the tensors; {}",
                    listed(missing), reason_for(missing, surplus)),
        site);
  if (!surplus.empty())
    throw ValueError(
        "load_params: the tensors " + listed(surplus) +
            " belong to no parameter of the model; was it built with the same settings?",
        site);
}

void check_kind(const Tensor& value, const ParamEntry& entry, Site site) {
  if (value.shape() != entry.value.shape())
    throw ShapeError(
        fmt::format("load_params: {} has shape {}, but the model's parameter {}",
                    printable(entry.name), value.shape().str(), entry.value.shape().str()),
        site);
  if (value.dtype() != entry.value.dtype())
    throw DTypeError(
        fmt::format("load_params: {} is {}, but the model's parameter {}; build the model in the "
                    "same dtype",
                    printable(entry.name), name_of(value.dtype()), name_of(entry.value.dtype())),
        site);
}

}  // namespace

const Tensor& NamedTensors::operator[](const ParamName& name) const {
  const std::string_view wanted = name;
  const auto found = tensors.find(wanted);
  if (found != tensors.end()) return found->second;
  if (const auto left = unread.find(wanted); left != unread.end())
    throw ValueError(fmt::format("tensor {}: {}", printable(wanted), left->second), name.site());
  std::vector<std::string> names;
  for (const auto& [there, value] : tensors) names.push_back(there);
  for (const auto& [there, reason] : unread) names.push_back(there);
  throw ValueError(
      fmt::format("there is no tensor {}{}", printable(wanted, longest), suggestion(wanted, names)),
      name.site());
}

NamedTensors NamedTensors::part(std::string_view prefix) const {
  NamedTensors result;
  const auto copy = [&](const auto& from, auto& to) {
    for (auto i = from.lower_bound(prefix); i != from.end() && i->first.starts_with(prefix); ++i)
      to.emplace_hint(to.end(), i->first.substr(prefix.size()), i->second);
  };
  copy(tensors, result.tensors);
  copy(unread, result.unread);
  return result;
}

void NamedTensors::insert(std::string_view prefix, const NamedTensors& other, Site site) {
  std::map<std::string, Tensor, std::less<>> added;
  for (const auto& [name, value] : other.tensors) {
    const auto place = added.emplace_hint(added.end(), fmt::format("{}{}", prefix, name), value);
    if (tensors.contains(place->first))
      throw ValueError(fmt::format("there is a tensor {} already", printable(place->first)), site);
  }
  tensors.merge(added);
}

double number_in(const NamedTensors& state, std::string_view name, double low, double high,
                 Site site) {
  const Tensor& value = state[{name, site}];
  if (value.dtype() != f64 || value.size() != 1)
    throw ValueError(fmt::format("entry {} of the state is {} {}, but has to be an f64 scalar",
                                 printable(name), name_of(value.dtype()), value.shape().str()),
                     site);
  const double number = value.to_vector().front();
  if (!(number >= low && number <= high))
    throw ValueError(fmt::format("entry {} of the state is {}, but has to be in [{}, {}]",
                                 printable(name), number, low, high),
                     site);
  return number;
}

Index count_in(const NamedTensors& state, std::string_view name, Site site) {
  constexpr double most = 0x1p53;  // doubles hold every whole number up to here
  const double number = number_in(state, name, 0, most, site);
  if (number != std::floor(number))
    throw ValueError(
        fmt::format("entry {} of the state is {}, but has to be a count", printable(name), number),
        site);
  return static_cast<Index>(number);
}

NamedTensors from_params(const Params& params) {
  NamedTensors result;
  params.each([&](const auto& entry) {
    // Whoever has a span of the numbers may write to them at any time.
    const Tensor& value = entry->value;
    result.tensors.emplace(entry->name, value.buffer().exposed() ? value.copy() : value);
  });
  return result;
}

void load_params(const NamedTensors& source, const Params& params, Site site) {
  check_names(source, params, site);
  params.each([&](const auto& entry) { check_kind(source[entry->name], *entry, site); });
  params.each([&](const auto& entry) { Param(entry).set(source[entry->name]); });
}

}  // namespace reel::nn
