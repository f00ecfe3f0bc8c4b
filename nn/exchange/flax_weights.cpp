#include <reel/autograd/ops.h>
#include <reel/nn/exchange/conversion.h>

/// Flax, whose cells have a Dense for each gate: `ii` from the input to the gate i, `hi` from the
/// state.
namespace reel::nn::exchange {
namespace {

constexpr std::string_view framework = "Flax";

// Of each gate's two layers, which have biases.
struct Gate {
  std::string input, state;
  bool input_bias, state_bias;
};

std::vector<Gate> gates_of(const Part& part) {
  if (part.kind == "RnnCell") return {{"i", "h", true, false}};
  if (part.kind == "GruCell")
    return {{"ir", "hr", true, false}, {"iz", "hz", true, false}, {"in", "hn", true, true}};
  return {{"ii", "hi", false, true},
          {"if", "hf", false, true},
          {"ig", "hg", false, true},
          {"io", "ho", false, true}};
}

Conversion recurrent(const Part& part) {
  const std::vector<Gate> gates = gates_of(part);
  const bool is_gru = part.params.contains("b_hn");
  if (part.params.size() != (is_gru ? 4 : 3)) refuse(part, framework);
  const Index inputs = part.shape("w_ih")[1], units = part.shape("w_hh")[1];
  Conversion c{.part = &part, .arrays = {}, .to = {}, .from = {}};
  const auto add = [&](const std::string& leaf, const Shape& shape, bool optional) {
    c.arrays.push_back({.layer = part.name, .leaf = leaf, .shape = shape, .optional = optional});
  };
  for (const Gate& gate : gates) {
    add(gate.input + "/kernel", {inputs, units}, false);
    add(gate.state + "/kernel", {units, units}, false);
    if (gate.input_bias) add(gate.input + "/bias", {units}, true);
    if (gate.state_bias) add(gate.state + "/bias", {units}, true);
  }
  c.to = [gates, units, is_gru](const Values& v) {
    std::vector<Tensor> arrays;
    for (std::size_t i = 0; i < gates.size(); ++i) {
      const auto block = [&](const char* name) {
        const auto begin = static_cast<Index>(i) * units;
        return rows(v.at(name), begin, begin + units);
      };
      arrays.push_back(transpose(block("w_ih")));
      arrays.push_back(transpose(block("w_hh")));
      arrays.push_back(block("b"));
      if (is_gru && gates[i].state_bias) arrays.push_back(v.at("b_hn"));
    }
    return arrays;
  };
  c.from = [gates, units, is_gru](const std::vector<Tensor>& a) {
    std::vector<Tensor> w, u, b;
    Values values;
    std::size_t next = 0;
    const auto bias = [&] {
      const Tensor& given = a[next++];
      return given.defined() ? given : zeros_like(a[0], units);
    };
    for (const Gate& gate : gates) {
      w.push_back(transpose(a[next++]));
      u.push_back(transpose(a[next++]));
      b.push_back(bias());
      if (is_gru && gate.state_bias) values.emplace("b_hn", bias());
    }
    values.emplace("w_ih", concat(w, 0));
    values.emplace("w_hh", concat(u, 0));
    values.emplace("b", concat(b, 0));
    return values;
  };
  return c;
}

}  // namespace

Conversion as_flax(const Part& part) {
  if (part.is_common_cell()) return recurrent(part);
  if (part.kind.empty()) return unchanged(part);
  if (part.kind == "Linear") return renamed(part, {{"w", "kernel"}, {"b", "bias"}}, true);
  if (part.kind == "Embedding") return renamed(part, {{"w", "embedding"}});
  if (part.kind == "LayerNorm") return renamed(part, {{"gain", "scale"}, {"bias", "bias"}});
  refuse(part, framework);
}

}  // namespace reel::nn::exchange
