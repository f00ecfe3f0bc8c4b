#include <reel/nn/exchange/conversion.h>

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>

namespace reel::nn::exchange {
namespace {

// Layers that PyTorch and others have as one module, whatever ours are made of.
bool is_composite(std::string_view kind) {
  return kind == "MultiHeadAttention" || kind == "AdaptiveSoftmax" ||
         kind == "ClassFactoredSoftmax";
}

constexpr std::string_view tied = "Linear tied to ";

// The part that a parameter belongs to: the innermost one, or one that is whole elsewhere.
std::string owner_of(const Params& params, std::string_view name) {
  const auto& kinds = params.kinds();
  for (std::size_t dot = name.find('.'); dot != name.npos; dot = name.find('.', dot + 1)) {
    const auto found = kinds.find(name.substr(0, dot));
    if (found != kinds.end() && is_composite(found->second)) return found->first;
  }
  const std::string owner(name.substr(0, name.find('.') == name.npos ? 0 : name.rfind('.')));
  return kinds.contains(owner) ? owner : std::string(name);
}

}  // namespace

std::vector<Part> parts_of(const Params& params) {
  std::vector<Part> parts;
  std::unordered_map<std::string, std::size_t> places;
  const auto& kinds = params.kinds();
  const auto part_named = [&](const std::string& name) -> Part& {
    const auto [place, is_new] = places.emplace(name, parts.size());
    const auto kind = kinds.find(name);
    if (is_new) parts.push_back({name, kind == kinds.end() ? "" : kind->second, {}});
    return parts[place->second];
  };
  for (const Param& param : params.list()) {
    const std::string &name = param.name(), owner = owner_of(params, name);
    // A parameter of no layer is a part itself; a layer may be the whole store.
    const std::size_t begin = owner.empty() ? 0 : std::min(owner.size() + 1, name.size());
    part_named(owner).params.emplace(name.substr(begin), param);
  }
  // Such a layer has the weights of another one, and perhaps nothing of its own.
  const std::string prefix = params.name().empty() ? "" : params.name() + '.';
  for (const auto& [name, kind] : kinds)
    if (kind.starts_with(tied) && name.starts_with(prefix)) {
      Part& part = part_named(name);
      const auto embedding = places.find(kind.substr(tied.size()));
      if (embedding == places.end()) continue;
      part.kind = "Linear";
      part.params.emplace("w", parts[embedding->second].params.at("w"));
    }
  return parts;
}

Tensor rows(const Tensor& x, Index begin, Index end) { return slice(x, 0, begin, end); }

Tensor zeros_like(const Tensor& x, Index size) { return zeros({size}, x.dtype()); }

Tensor reordered(const Tensor& x, std::string_view from, std::string_view to) {
  if (from == to) return x;
  const Index size = x.size(0) / static_cast<Index>(from.size());
  std::vector<Tensor> blocks;
  for (const char gate : to) {
    const auto block = static_cast<Index>(from.find(gate));
    blocks.push_back(rows(x, block * size, (block + 1) * size));
  }
  return concat(blocks, 0);
}

Values biases(const Part& part, Tensor of_input, Tensor of_state, const Tensor& w) {
  const Index count = part.shape("b")[0];
  if (!of_input.defined()) of_input = zeros_like(w, count);
  if (!of_state.defined()) of_state = zeros_like(w, count);
  if (!part.params.contains("b_hn")) return {{"b", of_input + of_state}};
  // The second bias of the candidate is multiplied by the reset gate.
  const Index gates = count / 3 * 2;
  return {{"b", concat({rows(of_input, 0, gates) + rows(of_state, 0, gates),
                        rows(of_input, gates, count)},
                       0)},
          {"b_hn", rows(of_state, gates, count)}};
}

std::vector<Tensor> two_biases(const Values& values) {
  const Tensor& b = values.at("b");
  const auto b_hn = values.find("b_hn");
  if (b_hn == values.end()) return {b, zeros_like(b, b.size(0))};
  return {b, concat({zeros_like(b, b.size(0) / 3 * 2), b_hn->second}, 0)};
}

void refuse(const Part& part, std::string_view framework) {
  std::string kind = part.kind;
  constexpr std::pair<const char*, const char*> extras[] = {{"norm_ih", " with layer norm"},
                                                            {"peepholes", " with peepholes"},
                                                            {"w_hr", " with a projection"}};
  for (const auto& [param, words] : extras)
    if (part.params.contains(param)) kind += words;
  throw ValueError(
      fmt::format("{} has the weights of {}, which {} does not have; save_safetensors(where, "
                  "from_params(params)) keeps every model under Reel's names",
                  part.name, kind, framework),
      SiteScope::current());
}

Conversion renamed(const Part& part, const std::vector<std::pair<std::string, std::string>>& names,
                   bool transposed) {
  Conversion c{.part = &part, .arrays = {}, .to = {}, .from = {}};
  std::vector<std::string> ours;
  for (const auto& [param, leaf] : names) {
    if (!part.params.contains(param)) continue;
    Shape shape = part.shape(param);
    if (transposed && shape.rank() == 2) shape = {shape[1], shape[0]};
    c.arrays.push_back({.layer = part.name, .leaf = leaf, .shape = shape});
    ours.push_back(param);
  }
  const auto turned = [transposed](const Tensor& x) {
    return transposed && x.rank() == 2 ? transpose(x) : x;
  };
  c.to = [ours, turned](const Values& values) {
    std::vector<Tensor> arrays;
    for (const std::string& name : ours) arrays.push_back(turned(values.at(name)));
    return arrays;
  };
  c.from = [ours, turned](const std::vector<Tensor>& arrays) {
    Values values;
    for (std::size_t i = 0; i < ours.size(); ++i) values.emplace(ours[i], turned(arrays[i]));
    return values;
  };
  return c;
}

Conversion unchanged(const Part& part) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& [name, param] : part.params) names.emplace_back(name, name);
  return renamed(part, names);
}

}  // namespace reel::nn::exchange
