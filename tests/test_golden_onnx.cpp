// Values of ONNX's reference evaluator, from golden/make_onnx.py, against ours.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "golden_directory.h"

using namespace reel;

namespace {

// The blocks of rows of one direction of a parameter [directions, blocks H, ..], in another order.
Tensor reordered(const Tensor& parameter, Index direction, std::initializer_list<Index> order,
                 Index blocks) {
  const Tensor rows = select(parameter, 0, direction);
  const Index size = rows.size(0) / blocks;
  std::vector<Tensor> parts;
  for (const Index block : order) parts.push_back(slice(rows, 0, block * size, (block + 1) * size));
  return concat(parts, 0);
}

// One node: its inputs, attributes and outputs.
struct Node {
  nn::NamedTensors values;

  bool has(const std::string& name) const { return values.tensors.contains(name); }
  const Tensor& operator[](const std::string& name) const { return values[name]; }
  Index directions() const { return values["W"].size(0); }
  // A state [directions, B, H] of one direction, undefined if none is given.
  Tensor state(const std::string& name, Index direction) const {
    if (!has(name)) return {};
    return select(values[name], has("batchwise") ? 1 : 0, direction);
  }
};

// ONNX has the gates of a GRU in the order z, r, h, and two biases.
void load(nn::GruCell cell, const Node& node, Index d) {
  const auto order = {Index{1}, Index{0}, Index{2}};
  cell.w_ih.set(reordered(node["W"], d, order, 3));
  cell.w_hh.set(reordered(node["R"], d, order, 3));
  const Index h = cell.output_size();
  Tensor b = zeros({3 * h}, f64), b_hn = zeros({h}, f64);
  if (node.has("B")) {
    const Tensor of_input = reordered(node["B"], d, order, 6);
    const Tensor of_state = reordered(node["B"], d, {4, 3, 5}, 6);
    b_hn = slice(of_state, 0, 2 * h, 3 * h);
    b = of_input + concat({slice(of_state, 0, 0, 2 * h), zeros({h}, f64)}, 0);
  }
  cell.b.set(b);
  cell.b_hn.set(b_hn);
}

Tensor sum_of_biases(const Node& node, Index d, Index rows) {
  if (!node.has("B")) return zeros({rows}, f64);
  const Tensor both = select(node["B"], 0, d);
  return slice(both, 0, 0, rows) + slice(both, 0, rows, 2 * rows);
}

void load(nn::RnnCell cell, const Node& node, Index d) {
  cell.w_ih.set(select(node["W"], 0, d));
  cell.w_hh.set(select(node["R"], 0, d));
  cell.b.set(sum_of_biases(node, d, cell.b.shape()[0]));
}

// Gates in the order i, o, f, c, peepholes i, o, f.
void load(nn::LstmCell cell, const Node& node, Index d) {
  const auto order = {Index{0}, Index{2}, Index{3}, Index{1}};
  cell.w_ih.set(reordered(node["W"], d, order, 4));
  cell.w_hh.set(reordered(node["R"], d, order, 4));
  const Tensor b = reshape(sum_of_biases(node, d, cell.b.shape()[0]), {1, cell.b.shape()[0]});
  cell.b.set(reordered(b, 0, order, 4));
  if (node.has("P")) cell.numbers[0].set(reordered(node["P"], d, {0, 2, 1}, 3));
}

nn::HiddenState state_of(const nn::HiddenState&, const Node& node, Index d) {
  return {node.state("initial_h", d)};
}
nn::LstmState state_of(const nn::LstmState&, const Node& node, Index d) {
  return {node.state("initial_h", d), node.state("initial_c", d)};
}

void check_close(const Tensor& ours, const Tensor& expected) {
  REQUIRE(ours.shape() == expected.shape());
  CHECK(max(abs(ours - expected)).item() < 1e-13);
}

// y of all directions is [T, B, directions H] here.
template <class State>
void check_outputs(const Node& node, const Tensor& y, const std::vector<State>& last) {
  const Index steps = y.size(0), rows = y.size(1), directions = node.directions();
  const Tensor split = reshape(y, {steps, rows, directions, y.size(2) / directions});
  const bool batchwise = node.has("batchwise");
  check_close(batchwise ? permute(split, {1, 0, 2, 3}) : permute(split, {0, 2, 1, 3}), node["Y"]);
  for (std::size_t k = 0; k < nn::flatten(last[0]).size(); ++k) {
    std::vector<Tensor> all;
    for (const State& state : last) all.push_back(nn::flatten(state)[k]);
    check_close(stack(all, batchwise ? 1 : 0), node[k == 0 ? "Y_h" : "Y_c"]);
  }
}

template <class L>
void check_node(const Node& node, const typename L::Options& layer_options) {
  const Tensor x = node.has("batchwise") ? transpose(node["X"], 0, 1) : node["X"];
  SequenceOptions options{.reverse = node.has("reverse")};
  if (node.has("sequence_lens")) options.lengths = node["sequence_lens"];
  const Params params(0, f64);
  const nn::Bidirectional<L> both(params, x.size(-1), node["R"].size(-1),
                                  nn::BidirectionalOptions{}, layer_options);
  load(both.forward.cell, node, 0);
  typename nn::Bidirectional<L>::State state{state_of(typename L::State{}, node, 0), {}};
  if (node.directions() == 1) {
    const auto [y, last] = both.forward(x, state.forward, options);
    return check_outputs(node, y, std::vector{last});
  }
  load(both.backward.cell, node, 1);
  state.backward = state_of(typename L::State{}, node, 1);
  const auto [y, last] = both(x, state, options);
  check_outputs(node, y, std::vector{last.forward, last.backward});
}

// Calls f for the nodes of an op.
template <class F>
void each_node(const std::string& op, Index count, F f) {
  const nn::NamedTensors nodes =
      nn::load_safetensors(REEL_GOLDEN_DIR "/onnx.safetensors").part(op + ".");
  std::set<std::string> names;
  for (const auto& [name, value] : nodes.tensors) names.insert(name.substr(0, name.find('.')));
  CHECK(std::ssize(names) == count);
  for (const std::string& name : names) {
    CAPTURE(name);
    f(Node{nodes.part(name + ".")});
  }
}

}  // namespace

TEST_CASE("the node tests of RNN, GRU and LSTM in ONNX have the values of its evaluator") {
  each_node("rnn", 16, [](const Node& node) { check_node<nn::Rnn>(node, {}); });
  each_node("gru", 18, [](const Node& node) {
    const bool after = node.has("linear_before_reset");
    check_node<nn::Gru>(node, {.reset = after ? Reset::after : Reset::before});
  });
  each_node("lstm", 20,
            [](const Node& node) { check_node<nn::Lstm>(node, {.peepholes = node.has("P")}); });
}
