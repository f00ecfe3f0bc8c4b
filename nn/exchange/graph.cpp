#include <reel/nn/exchange/graph.h>

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/message.h>
#include <reel/autograd/ops.h>

namespace reel::nn {
namespace graph {
namespace {

// "rnn" of "rnn.0.forward.w_ih", if that is cell `direction` of layer `layer`; else nothing.
std::optional<std::string> stack_of(std::string_view part, Index layer, Index direction,
                                    bool has_directions) {
  const auto removed = [&](const std::string& end) {
    if (!part.ends_with(end)) return false;
    part.remove_suffix(end.size());
    return true;
  };
  if (has_directions && !removed(direction == 0 ? ".forward" : ".backward")) return {};
  if (!removed(fmt::format(".{}", layer))) return {};
  return std::string(part);
}

}  // namespace

std::optional<std::string> RecurrentLayers::stack_name() const {
  std::optional<std::string> name;
  Index units = 0;
  const CellSpec* spec = nullptr;
  bool same = true;
  each_cell([&](const auto& cell, Index layer, Index direction) {
    const auto stack = stack_of(module_of(cell.w_ih.name()), layer, direction, directions() == 2);
    if (layer == 0 && direction == 0) {
      name = stack;
      units = cell.hidden_size();
      spec = &cell.fused().spec;
    }
    same =
        same && stack && stack == name && cell.hidden_size() == units && &cell.fused().spec == spec;
  });
  const auto fits = []<class L>(const L& layer) {
    if constexpr (is_bidirectional<L>)
      return layer.merge == Merge::concat &&
             decltype(layer.forward)::can_run_both(layer.forward, layer.backward);
    else
      return true;
  };
  std::visit(
      [&](const auto& stack) {
        same = same && stack.links.connection == Connection::none && stack.links.norms.empty() &&
               std::ranges::all_of(stack.layers, fits);
      },
      layers);
  return same ? name : std::nullopt;
}

Index RecurrentLayers::layer_count() const {
  return std::visit([](const auto& stack) { return std::ssize(stack.layers); }, layers);
}

namespace {

struct ParamsOf {
  std::vector<Param> params;

  void add(const Param& p) {
    if (p.defined()) params.push_back(p);
  }
  void operator()(const Embedding& layer) { add(layer.w); }
  void operator()(const Linear& layer) {
    add(layer.w);
    add(layer.b);
  }
  void operator()(const LayerNorm& layer) {
    add(layer.gain);
    add(layer.bias);
  }
  void operator()(const Constant& op) { add(op.param); }
  void operator()(const RecurrentLayers& op) {
    op.each_cell([&](const auto& cell, Index, Index) {
      cell.params().each([&](const Param& p) { add(p); });
    });
  }
  void operator()(const Attention& op) { std::visit(*this, op.layer); }
  void operator()(const DotAttention&) {}
  void operator()(const GeneralAttention& layer) { (*this)(layer.key); }
  void operator()(const AdditiveAttention& layer) {
    for (const Linear* part : {&layer.query, &layer.key, &layer.score}) (*this)(*part);
  }
  void operator()(const MultiHeadAttention& layer) {
    for (const Linear* part : {&layer.query, &layer.key, &layer.value, &layer.output})
      (*this)(*part);
  }
  void operator()(const auto&) {}
};

}  // namespace

std::vector<Param> params_of(const Operation& operation) {
  ParamsOf result;
  std::visit(result, operation);
  return std::move(result.params);
}

double RecurrentLayers::dropout() const {
  return std::visit([](const auto& stack) { return stack.links.dropout.rate; }, layers);
}

}  // namespace graph

namespace {

using namespace graph;

bool is_identifier(const std::string& name) {
  const auto is_word = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
  return !name.empty() && std::ranges::all_of(name, is_word) &&
         !std::isdigit(static_cast<unsigned char>(name[0]));
}

void require_name(const std::string& name, const auto& taken, Site site) {
  if (!is_identifier(name))
    throw ValueError(fmt::format("{} cannot be the name of an input or output, which is made of "
                                 "letters, digits and _",
                                 in_quotes(name)),
                     site);
  if (std::ranges::any_of(taken, [&](const auto& other) { return other == name; }))
    throw ValueError(fmt::format("the graph has two inputs or two outputs named {}", name), site);
}

std::string part_of(const Param& param) { return std::string(module_of(param.name())); }
std::string part_of_part(const Param& param) {
  return std::string(module_of(module_of(param.name())));
}

std::string identifier(std::string name) {
  std::ranges::replace(name, '.', '_');
  return name;
}

}  // namespace

GraphValue Graph::input(Input input, Site site) {
  std::vector<std::string> taken;
  for (const Input& other : inputs_) taken.push_back(other.name);
  require_name(input.name, taken, site);
  const GraphValue value = input.value = {values_++};
  const auto first_state =
      std::ranges::find(inputs_, InputKind::state, [](const Input& i) { return i.kind; });
  inputs_.insert(input.kind == InputKind::state ? inputs_.end() : first_state, std::move(input));
  return value;
}

void Graph::mark_as_state(GraphValue value) {
  for (Input& input : inputs_)
    if (input.value.index == value.index) input.kind = InputKind::state;
}

GraphValue Graph::tokens(const std::string& name, Site site) {
  return input({name, InputKind::tokens, {"T", "B"}}, site);
}
GraphValue Graph::features(const std::string& name, Arg<Index> size, Site site) {
  if (size < 1)
    throw ValueError(fmt::format("input {} of the graph has {} features, but has to have 1 or more",
                                 name, Index{size}),
                     site);
  return input({name, InputKind::features, {"T", "B", std::to_string(size)}}, site);
}
GraphValue Graph::lengths(const std::string& name, Site site) {
  return input({name, InputKind::lengths, {"B"}}, site);
}

void Graph::output(const std::string& name, GraphValue value, Site site) {
  add_output({name, value}, site);
}

void Graph::add_output(const graph::Output& output, Site site) {
  std::vector<std::string> taken;
  for (const graph::Output& other : outputs_) taken.push_back(other.name);
  require_name(output.name, taken, site);
  require(output.value, site);
  const auto first_state = std::ranges::find(outputs_, true, &graph::Output::is_state);
  outputs_.insert(output.is_state ? outputs_.end() : first_state, output);
}

void Graph::require(GraphValue value, Site site) const {
  if (!value.defined())
    throw ValueError("a value of the graph is undefined", SiteScope::resolve(site));
  if (value.index >= values_)
    throw ValueError("a value belongs to another graph", SiteScope::resolve(site));
}

std::vector<GraphValue> Graph::add_node(std::string name, Operation operation,
                                        std::vector<GraphValue> inputs, std::size_t outputs,
                                        std::size_t required) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (i < required || inputs[i].defined()) require(inputs[i], {});
  std::vector<GraphValue> results;
  for (std::size_t i = 0; i < outputs; ++i) results.push_back({values_++});
  nodes_.push_back({std::move(name), std::move(operation), std::move(inputs), results});
  return results;
}

GraphValue Graph::apply(Operation operation, std::vector<GraphValue> inputs) {
  const std::string name = fmt::format("node{}", nodes_.size());
  return add_node(name, std::move(operation), std::move(inputs), 1).front();
}

GraphValue Graph::operator()(const Embedding& layer, GraphValue symbols) {
  return add_node(part_of(layer.w), layer, {symbols}, 1).front();
}
GraphValue Graph::operator()(const Linear& layer, GraphValue x) {
  return add_node(part_of(layer.b.defined() ? layer.b : layer.w), layer, {x}, 1).front();
}
GraphValue Graph::operator()(const LayerNorm& layer, GraphValue x) {
  return add_node(part_of(layer.gain), layer, {x}, 1).front();
}
GraphValue Graph::operator()(const Dropout& layer, GraphValue x) {
  return layer.rate == 0 ? x : apply(layer, {x});
}
GraphValue Graph::one_hot(GraphValue symbols, Arg<Index> classes) {
  return apply(OneHot{classes, params_.dtype()}, {symbols});
}

GraphValue Graph::attention(Attention layer, GraphValue x, GraphValue memory, GraphValue lengths,
                            bool has_mask) {
  if (has_mask)
    throw ValueError("an attention in a graph may be causal, but has no mask: a mask is data",
                     SiteScope::current());
  const std::string name = std::visit(
      [&](const auto& a) {
        if constexpr (requires { a.key; })
          return part_of_part(a.key.w);
        else
          return fmt::format("node{}", nodes_.size());
      },
      layer.layer);
  return add_node(name, std::move(layer), {x, memory, lengths}, 1, 2).front();
}

GraphSequence Graph::recurrent(std::string_view name, const RecurrentLayers& layers, GraphValue x,
                               GraphValue lengths) {
  const std::string own = identifier(name.empty() ? "rnn" : std::string(name));
  // A layer that is called again has other states.
  std::string prefix = own;
  const auto is_taken = [&](const Input& input) { return input.name == prefix + "_h0"; };
  for (int call = 2; std::ranges::any_of(inputs_, is_taken); ++call)
    prefix = fmt::format("{}_{}", own, call);
  const Index count = layers.layer_count() * layers.directions();
  Index hidden = 0, cell = 0;
  layers.each_cell([&](const auto& c, Index, Index) {
    hidden = c.output_size();
    cell = c.hidden_size();
  });
  const auto state = [&](const char* end, Index units) {
    return input(
        {prefix + end, InputKind::state, {std::to_string(count), "B", std::to_string(units)}});
  };
  const GraphValue h0 = state("_h0", hidden),
                   c0 = layers.has_cell_state() ? state("_c0", cell) : GraphValue();
  const GraphSequence result = recurrent(name, layers, x, lengths, h0, c0);
  add_output({prefix + "_h", result.h, true}, {});
  if (result.c.defined()) add_output({prefix + "_c", result.c, true}, {});
  return result;
}

GraphSequence Graph::recurrent(std::string_view name, const RecurrentLayers& layers, GraphValue x,
                               GraphValue lengths, GraphValue h0, GraphValue c0) {
  const bool has_c = layers.has_cell_state();
  const auto results = add_node(std::string(name), layers, {x, lengths, h0, c0}, has_c ? 3 : 2, 1);
  return {results[0], results[1], has_c ? results[2] : GraphValue()};
}

GraphValue Graph::merged(Merge merge, GraphValue there, GraphValue back) {
  if (merge == Merge::concat) return concat(there, back);
  const GraphValue sum = add(there, back);
  return merge == Merge::sum ? sum : mul(sum, constant(0.5));
}

GraphValue Graph::constant(double value) {
  return apply(Constant{{}, scalar(value, params_.dtype())}, {});
}

GraphValue Graph::link(const StackLinks& links, std::size_t i, GraphValue below) {
  return i == 0 || links.norms.empty() ? below : (*this)(links.norms[i - 1], below);
}

// t ∘ y + (1 - t) ∘ x = x + t ∘ (y - x)
GraphValue Graph::joined(const StackLinks& links, std::size_t i, GraphValue x, GraphValue y) {
  if (i == 0 || links.connection == Connection::none) return y;
  if (links.connection == Connection::residual) return add(y, x);
  const GraphValue t = sigmoid((*this)(links.gates[i - 1], x));
  return add(x, mul(t, apply(Function::sub, {y, x})));
}

}  // namespace reel::nn
