#include <reel/nn/named_state.h>

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/message.h>
#include <reel/autograd/ops.h>

namespace reel::nn::detail {
namespace {

constexpr std::string_view no_layers = "no_layers";  // in place of the tensors of an empty state
constexpr std::size_t longest = 80;                  // of a name in a message

Tensor placeholder() { return zeros({0}); }

bool is_placeholder(const Tensor& x) { return x.defined() && x.shape() == Shape{0}; }

}  // namespace

NamedTensors named_state(std::string_view prefix, std::span<const std::string> names,
                         std::span<const Tensor> tensors) {
  NamedTensors result;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    result.tensors[fmt::format("{}{}", prefix, names[i])] =
        tensors[i].defined() ? tensors[i].detach() : placeholder();
  if (tensors.empty()) result.tensors[fmt::format("{}{}", prefix, no_layers)] = placeholder();
  return result;
}

std::vector<std::string> state_names(const NamedTensors& source, std::string_view prefix,
                                     Site site) {
  const NamedTensors part = source.part(prefix);
  std::vector<std::string> names;
  for (const auto& [name, value] : part.tensors) names.push_back(name);
  for (const auto& [name, reason] : part.unread) names.push_back(name);
  if (names.empty())
    throw ValueError(
        fmt::format("to_state: no name begins with {}, so there is no state", printable(prefix)),
        site);
  return names;
}

std::vector<Tensor> state_tensors(const NamedTensors& source, std::string_view prefix,
                                  std::span<const std::string> names, Site site) {
  std::vector<Tensor> tensors;
  for (const std::string& name : names) {
    const std::string full = fmt::format("{}{}", prefix, name);
    const Tensor& value = source[ParamName(full, site)];
    tensors.push_back(is_placeholder(value) ? Tensor() : value);
  }
  for (const std::string& found : state_names(source, prefix, site))
    if (std::ranges::find(names, found) == names.end())
      throw ValueError(fmt::format("to_state: {}{} is not a tensor of this state", prefix,
                                   printable(found, longest)),
                       site);
  check_rows("to_state", prefix, names, tensors, site);
  return tensors;
}

bool without_tensors(std::span<const std::string> names) {
  return names.size() == 1 && names[0] == no_layers;
}

bool any_begins_with(std::span<const std::string> names, std::string_view prefix) {
  return std::ranges::any_of(names, [&](const std::string& n) { return n.starts_with(prefix); });
}

}  // namespace reel::nn::detail
