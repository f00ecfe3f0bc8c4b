#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include <reel/autograd/ops.h>
#include <reel/nn/exchange/conversion.h>

/// PyTorch's state_dict. Its modules run several layers and both directions, where Reel has parts:
/// `rnn.1.backward` is layer 1 of the module `rnn`, with the names weight_ih_l1_reverse and so on.
namespace reel::nn::exchange {
namespace {

constexpr std::string_view framework = "PyTorch";

// A part's name, "rnn.1.backward", taken apart.
struct Layer {
  std::string module;  // "rnn"
  Index number = -1;   // 1; -1 if it is not one of a stack
  std::string single;  // "rnn.1"
  bool backward = false, both = false;
};

std::pair<std::string, std::string> split_last(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string::npos) return {"", name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

Layer layer_of(const std::string& part) {
  Layer layer{.module = part, .single = part};
  auto [outer, last] = split_last(part);
  if (last == "forward" || last == "backward") {
    layer.both = true;
    layer.backward = last == "backward";
    layer.single = layer.module = outer;
    std::tie(outer, last) = split_last(outer);
  }
  Index number = 0;
  const auto [end, error] = std::from_chars(last.data(), last.data() + last.size(), number);
  if (!outer.empty() && error == std::errc() && end == last.data() + last.size() && number >= 0) {
    layer.module = outer;
    layer.number = number;
  }
  return layer;
}

// The stacks that are one module in PyTorch: equal layers, in both directions or not, that are
// numbered from 0 and feed each other, with nothing in between.
std::set<std::string> plain_stacks(const std::vector<Part>& parts) {
  std::map<std::string, std::vector<std::pair<Layer, const Part*>>> stacks;
  std::set<std::string> mixed;
  for (const Part& part : parts) {
    const Layer layer = layer_of(part.name);
    if (part.is_recurrent() && layer.number >= 0) {
      stacks[layer.module].emplace_back(layer, &part);
    } else {
      // Links between layers are parts beside them.
      for (std::string outer = split_last(part.name).first; !outer.empty();
           outer = split_last(outer).first)
        mixed.insert(outer);
    }
  }
  std::set<std::string> plain;
  for (const auto& [module, layers] : stacks) {
    const Layer& first = layers.front().first;
    const Part& bottom = *layers.front().second;
    const Index directions = first.both ? 2 : 1;
    bool fits =
        !mixed.contains(module) && layers.size() % static_cast<std::size_t>(directions) == 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto& [layer, part] = layers[i];
      const Index number = static_cast<Index>(i) / directions;
      fits = fits && layer.number == number && layer.both == first.both &&
             part->kind == bottom.kind && part->shape("w_hh") == bottom.shape("w_hh") &&
             (number == 0 || part->shape("w_ih")[1] == directions * part->shape("w_hh")[1]);
    }
    if (fits) plain.insert(module);
  }
  return plain;
}

// Where PyTorch may have a recurrent part: in a module of the whole stack, in one of its own, or as
// a cell.
std::vector<TorchPlace> places_of(const Part& part, const std::set<std::string>& plain) {
  const Layer layer = layer_of(part.name);
  const std::string reverse = layer.backward ? "_reverse" : "";
  std::vector<TorchPlace> places;
  if (plain.contains(layer.module))
    places.push_back({layer.module, fmt::format("_l{}{}", layer.number, reverse)});
  places.push_back({layer.single, "_l0" + reverse});
  places.push_back({torch_name(part.name), "_l0"});
  if (!layer.both) places.push_back({layer.single, ""});
  return places;
}

Conversion recurrent(const Part& part, const TorchPlace& place) {
  const bool projects = part.params.contains("w_hr");
  std::size_t known = 3;
  for (const char* name : {"b_hn", "w_hr"}) known += part.params.count(name);
  if (known != part.params.size()) refuse(part, framework);
  const auto array = [&](const char* name, const char* param, bool optional = false) {
    return Array{.layer = place.module,
                 .leaf = name + place.suffix,
                 .shape = part.shape(param),
                 .optional = optional};
  };
  Conversion c{.part = &part,
               .arrays = {array("weight_ih", "w_ih"), array("weight_hh", "w_hh"),
                          array("bias_ih", "b", true), array("bias_hh", "b", true)},
               .to = {},
               .from = {}};
  if (projects) c.arrays.push_back(array("weight_hr", "w_hr"));
  c.to = [projects](const Values& v) {
    std::vector<Tensor> arrays{v.at("w_ih"), v.at("w_hh")};
    std::ranges::copy(two_biases(v), std::back_inserter(arrays));
    if (projects) arrays.push_back(v.at("w_hr"));
    return arrays;
  };
  c.from = [projects, &part](const std::vector<Tensor>& a) {
    Values values = biases(part, a[2], a[3], a[0]);
    values.emplace("w_ih", a[0]);
    values.emplace("w_hh", a[1]);
    if (projects) values.emplace("w_hr", a[4]);
    return values;
  };
  return c;
}

// Query, key and value are one matrix where all their inputs have its width.
Conversion attention(const Part& part) {
  const Shape &q = part.shape("query.w"), &k = part.shape("key.w"), &v = part.shape("value.w");
  const bool bias = part.params.contains("query.b"), one = k == q && v == q;
  const Index size = q[0];
  Conversion c{.part = &part, .arrays = {}, .to = {}, .from = {}};
  const auto add = [&](const char* leaf, const Shape& shape) {
    c.arrays.push_back({.layer = part.name, .leaf = leaf, .shape = shape});
  };
  if (one) {
    add("in_proj_weight", {3 * size, q[1]});
  } else {
    add("q_proj_weight", q);
    add("k_proj_weight", k);
    add("v_proj_weight", v);
  }
  add("out_proj.weight", part.shape("output.w"));
  if (bias) {
    add("in_proj_bias", {3 * size});
    add("out_proj.bias", {size});
  }
  c.to = [bias, one](const Values& x) {
    std::vector<Tensor> a{x.at("query.w"), x.at("key.w"), x.at("value.w")};
    if (one) a = {concat(a, 0)};
    a.push_back(x.at("output.w"));
    if (!bias) return a;
    a.push_back(concat({x.at("query.b"), x.at("key.b"), x.at("value.b")}, 0));
    a.push_back(x.at("output.b"));
    return a;
  };
  c.from = [bias, one, size](const std::vector<Tensor>& a) {
    Values x;
    const char* const names[] = {"query", "key", "value"};
    const std::size_t after = one ? 1 : 3;
    for (std::size_t i = 0; i < 3; ++i) {
      const auto begin = static_cast<Index>(i) * size;
      x[names[i] + std::string(".w")] = one ? rows(a[0], begin, begin + size) : a[i];
      if (bias) x[names[i] + std::string(".b")] = rows(a[after + 1], begin, begin + size);
    }
    x["output.w"] = a[after];
    if (bias) x["output.b"] = a[after + 2];
    return x;
  };
  return c;
}

// PyTorch numbers the two matrices of a tail: tail.0.1.weight.
Conversion adaptive_softmax(const Part& part) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& [name, param] : part.params) {
    const auto& [matrix, last] = split_last(name);
    const auto& [tail, which] = split_last(matrix);
    const std::string to = which == "projection" ? tail + ".0"
                           : which == "output"   ? tail + ".1"
                                                 : matrix;
    names.emplace_back(name, to + (last == "w" ? ".weight" : ".bias"));
  }
  return renamed(part, names);
}

Conversion conversion_of(const Part& part) {
  if (part.kind.empty()) return unchanged(part);
  if (part.kind == "Linear") return renamed(part, {{"w", "weight"}, {"b", "bias"}});
  if (part.kind == "Embedding") return renamed(part, {{"w", "weight"}});
  if (part.kind == "LayerNorm") return renamed(part, {{"gain", "weight"}, {"bias", "bias"}});
  if (part.kind == "MultiHeadAttention") return attention(part);
  if (part.kind == "AdaptiveSoftmax") return adaptive_softmax(part);
  refuse(part, framework);
}

}  // namespace

std::string torch_name(std::string_view part) {
  static const std::set<std::string, std::less<>> taken{"add_module",
                                                        "apply",
                                                        "bfloat16",
                                                        "buffers",
                                                        "call_super_init",
                                                        "children",
                                                        "compile",
                                                        "cpu",
                                                        "cuda",
                                                        "double",
                                                        "dump_patches",
                                                        "eval",
                                                        "extra_repr",
                                                        "float",
                                                        "forward",
                                                        "get_buffer",
                                                        "get_extra_state",
                                                        "get_parameter",
                                                        "get_submodule",
                                                        "half",
                                                        "ipu",
                                                        "load_state_dict",
                                                        "modules",
                                                        "mtia",
                                                        "named_buffers",
                                                        "named_children",
                                                        "named_modules",
                                                        "named_parameters",
                                                        "parameters",
                                                        "register_buffer",
                                                        "register_module",
                                                        "register_parameter",
                                                        "requires_grad_",
                                                        "set_extra_state",
                                                        "set_submodule",
                                                        "share_memory",
                                                        "state_dict",
                                                        "to",
                                                        "to_empty",
                                                        "train",
                                                        "training",
                                                        "type",
                                                        "xpu",
                                                        "zero_grad"};
  std::string name;
  for (std::size_t begin = 0; begin <= part.size();) {
    const std::size_t end = std::min(part.find('.', begin), part.size());
    const std::string_view one = part.substr(begin, end - begin);
    name += (begin == 0 ? "" : ".") + std::string(one) + (taken.contains(one) ? "_" : "");
    begin = end + 1;
  }
  return name;
}

std::vector<Conversion> as_torch(const std::vector<Part>& parts, const NamedTensors* source,
                                 const std::map<std::string, TorchPlace>& places) {
  const std::set<std::string> plain = plain_stacks(parts);
  std::vector<Conversion> conversions;
  for (const Part& part : parts) {
    if (!part.is_common_cell()) {
      conversions.push_back(conversion_of(part));
      continue;
    }
    if (const auto found = places.find(part.name); found != places.end()) {
      conversions.push_back(recurrent(part, found->second));
      continue;
    }
    const std::vector<TorchPlace> candidates = places_of(part, plain);
    const auto fits = [&](const TorchPlace& place) {
      return source && source->tensors.contains(place.module + ".weight_ih" + place.suffix);
    };
    const auto place = std::ranges::find_if(candidates, fits);
    conversions.push_back(recurrent(part, place == candidates.end() ? candidates.front() : *place));
  }
  for (Conversion& conversion : conversions)
    for (Array& array : conversion.arrays)
      if (!source || !source->tensors.contains(array.layer + '.' + array.leaf))
        array.layer = torch_name(array.layer);
  return conversions;
}

}  // namespace reel::nn::exchange
