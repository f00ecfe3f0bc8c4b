#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include <reel/autograd/message.h>
#include <reel/autograd/ops.h>
#include <reel/nn/exchange/conversion.h>
#include <reel/nn/exchange/onnx_import.h>

/// LSTM, GRU and RNN of ONNX as layers of Reel.
namespace reel::nn::onnx {
namespace {

// The operator's activations in one direction, and the orders of the gates.
template <class C>
struct Form;
template <>
struct Form<RnnCell> {
  static constexpr std::string_view ours = "h", theirs = "h";
  static constexpr std::array activations{"Tanh"};
};
template <>
struct Form<GruCell> {
  static constexpr std::string_view ours = "rzn", theirs = "zrn";
  static constexpr std::array activations{"Sigmoid", "Tanh"};
};
template <>
struct Form<LstmCell> {
  static constexpr std::string_view ours = "ifgo", theirs = "iofg";
  static constexpr std::array activations{"Sigmoid", "Tanh", "Tanh"};
};

// The arrays of a node, [directions, ...]; b and p may be undefined.
struct NodeWeights {
  Tensor w, r, b, p;
};

// Gives the cell of one direction its weights.
template <class C>
void load(C& cell, const NodeWeights& weights, Index direction) {
  using F = Form<C>;
  const auto ours = [](const Tensor& x) { return exchange::reordered(x, F::theirs, F::ours); };
  const Tensor w = weights.w[direction], r = weights.r[direction];
  cell.w_ih.set(ours(w));
  cell.w_hh.set(ours(r));
  exchange::Part part{.name = "", .kind = "", .params = {{"b", cell.b}}};
  if constexpr (requires { cell.b_hn; }) part.params.emplace("b_hn", cell.b_hn);
  Tensor of_input, of_state;
  if (weights.b.defined()) {
    const Tensor both = weights.b[direction];
    const Index count = both.size(0) / 2;
    of_input = ours(exchange::rows(both, 0, count));
    of_state = ours(exchange::rows(both, count, 2 * count));
  }
  for (const auto& [name, value] : exchange::biases(part, of_input, of_state, w))
    part.params.at(name).set(value);
  if (weights.p.defined())
    cell.numbers[0].set(exchange::reordered(weights.p[direction], "iof", "ifo"));
}

}  // namespace

// Inputs X, W, R, B, sequence_lens, initial_h, and of an LSTM initial_c and P.
template <class C>
void Importer::recurrent() {
  using F = Form<C>;
  constexpr bool is_lstm = std::same_as<C, LstmCell>;
  allow(
      {"hidden_size", "direction", "activations", "linear_before_reset", "layout", "input_forget"});
  for (const char* name : {"layout", "input_forget"})
    if (integer(name, 0) != 0) fail(fmt::format("the attribute {} has to be 0", name));

  const auto arrays_at = [&](std::size_t i, const char* what) {
    const Array* const given = array(i);
    if (!given) fail(fmt::format("its {} are computed, but have to be constants", what));
    return this->weights(*given);
  };
  NodeWeights weights{arrays_at(1, "weights W"), arrays_at(2, "weights R"), {}, {}};
  if (has_input(3)) weights.b = arrays_at(3, "biases B");
  if (is_lstm && has_input(7)) weights.p = arrays_at(7, "peepholes P");

  const std::string direction = text("direction", "forward");
  const Index directions = direction == "bidirectional" ? 2 : 1;
  if (directions == 1 && direction != "forward" && direction != "reverse")
    fail(fmt::format("the attribute direction is {}", in_quotes(direction)));
  const Index hidden = weights.r.rank() == 3 ? weights.r.size(2) : 0;
  const Index rows = static_cast<Index>(F::ours.size()) * hidden;
  const auto require = [&](const Tensor& x, const char* what, const Shape& shape) {
    if (x.defined() && x.shape() != shape)
      fail(fmt::format("its {} is {}, but has to be {}", what, x.shape().str(), shape.str()));
  };
  if (weights.w.rank() != 3)
    fail(fmt::format("its W is {}, but has three axes", weights.w.shape().str()));
  require(weights.r, "R", {directions, rows, hidden});
  require(weights.w, "W", {directions, rows, weights.w.size(2)});
  require(weights.b, "B", {directions, 2 * rows});
  require(weights.p, "P", {directions, 3 * hidden});
  if (integer("hidden_size", hidden) != hidden)
    fail(fmt::format("the attribute hidden_size is {}, but R is {}", integer("hidden_size", 0),
                     weights.r.shape().str()));

  typename C::Options options;
  std::vector<std::string> activations(F::activations.begin(), F::activations.end());
  if (const Attribute* const given = attribute("activations")) {
    activations = given->texts;
    const auto half = static_cast<std::ptrdiff_t>(activations.size() / 2);
    if (directions == 2 &&
        std::equal(activations.begin(), activations.begin() + half, activations.begin() + half))
      activations.resize(static_cast<std::size_t>(half));
  }
  bool is_default = std::ranges::equal(activations, F::activations);
  if constexpr (requires { options.activation; })
    if (activations == std::vector<std::string>{"Relu"}) {
      options.activation = Activation::relu;
      is_default = true;
    }
  if (!is_default)
    fail(fmt::format("the attribute activations is {}, and Reel has {}{}",
                     fmt::join(activations, ", "), fmt::join(F::activations, ", "),
                     F::activations.size() == 1 ? " and Relu" : ""));
  if constexpr (requires { options.reset; })
    options.reset = integer("linear_before_reset", 0) != 0 ? Reset::after : Reset::before;
  if constexpr (is_lstm) options.peepholes = weights.p.defined();

  using L = Recurrent<C>;
  const std::string part = part_for(node_->name.empty() ? input_name(1) : node_->name);
  const Index inputs = weights.w.size(2);
  const auto made = [&]() -> graph::RecurrentLayers {
    if (directions == 1) {
      L layer(params_ / part, inputs, hidden, options);
      load(layer.cell, weights, 0);
      return {Stacked<L>(Params(), {}, std::vector{layer}), direction == "reverse"};
    }
    Bidirectional<L> both(params_ / part, inputs, hidden, options);
    load(both.forward.cell, weights, 0);
    load(both.backward.cell, weights, 1);
    return {Stacked<Bidirectional<L>>(Params(), {}, std::vector{both})};
  };

  const GraphValue lengths = has_input(4) ? in(4) : GraphValue(),
                   h0 = has_input(5) ? in(5) : GraphValue();
  const GraphValue c0 = is_lstm && has_input(6) ? in(6) : GraphValue();
  const GraphSequence result = graph_.recurrent(part, made(), in(0), lengths, h0, c0);
  for (std::size_t i = 5; i < std::min<std::size_t>(node_->inputs.size(), 7); ++i)
    if (has_input(i)) mark_as_state(input_name(i));
  if (!node_->outputs.empty() && !node_->outputs[0].empty()) {
    sequences_[node_->outputs[0]] = result.y;
    directions_[node_->outputs[0]] = directions;
  }
  set(1, result.h);
  if constexpr (is_lstm) set(2, result.c);
}
template void Importer::recurrent<RnnCell>();
template void Importer::recurrent<GruCell>();
template void Importer::recurrent<LstmCell>();

// An input that is an initial state, or of which that is a part, need not be given.
void Importer::mark_as_state(const std::string& name) {
  const auto maker = makers_.find(name);
  if (maker != makers_.end()) {
    if (maker->second->operation == "Slice") mark_as_state(maker->second->inputs.front());
    return;
  }
  if (const auto value = values_.find(name); value != values_.end())
    graph_.mark_as_state(value->second);
}

}  // namespace reel::nn::onnx
