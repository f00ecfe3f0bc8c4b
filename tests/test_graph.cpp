// Models as graphs: they compute what the model does, and refuse what cannot be said in them.
#include <doctest/doctest.h>

#include <reel/nn/exchange/torch_program.h>
#include <reel/reel.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

template <class E = ValueError, class F>
std::string message(F&& f) {
  return testing::message_without_line<E>(std::forward<F>(f));
}

}  // namespace

TEST_CASE("graph: it has the bits of the model, forward and backward") {
  const Params params(3);
  const nn::Embedding embed(params / "embed", 9, 6);
  const nn::Stacked<nn::Bidirectional<nn::Lstm>> lstm(params / "lstm", 6, 5, {.dropout = 0.3});
  const nn::Bidirectional<nn::Stacked<nn::Gru>> gru(params / "gru", 10, 4,
                                                    {.merge = nn::Merge::mean});
  const nn::Linear head(params / "head", 4, 9);
  nn::Graph graph(params);
  const auto lengths = graph.lengths();
  const auto y = graph(gru, graph(lstm, graph(embed, graph.tokens("tokens")), lengths), lengths);
  graph.output("logits", graph(head, y));

  Rng rng(1);
  const Tensor tokens = floor(rng.uniform({7, 3}, 0, 9)).to(i32);
  const Tensor n = tensor({3}, {7, 2, 5}, i32);
  const auto direct = [&](const nn::Mode& mode) {
    const Tensor x = lstm(embed(tokens, mode), {}, mode, {.lengths = n}).y;
    return head(gru(x, {}, mode, {.lengths = n}).y);
  };
  const std::map<std::string, Tensor> inputs{{"tokens", tokens}, {"lengths", n}};
  CHECK(same_bits(graph(inputs).at("logits"), direct(nn::Eval{})));

  const auto gradient = [&](const auto& run) {
    Rng noise(5);
    Tape tape;
    const Gradients gradients = tape.gradient(sum(square(run(nn::Train{noise}))), params);
    return gradients["lstm.0.forward.w_hh"];
  };
  CHECK(same_bits(gradient([&](const nn::Mode& mode) { return graph(inputs, mode).at("logits"); }),
                  gradient(direct)));
}

TEST_CASE("graph: states go in and come out, layer by layer and direction by direction") {
  const Params params(3);
  const nn::Stacked<nn::Bidirectional<nn::Lstm>> lstm(params / "lstm", 2, 3);
  nn::Graph graph(params);
  graph.output("y", graph(lstm, graph.features("x", 2)));
  std::vector<std::string> names;
  for (const auto& input : graph.inputs()) names.push_back(input.name);
  for (const auto& output : graph.outputs()) names.push_back(output.name);
  CHECK(names == std::vector<std::string>{"x", "lstm_h0", "lstm_c0", "y", "lstm_h", "lstm_c"});

  Rng rng(2);
  const Tensor x = rng.normal({4, 2, 2}, 0, 1), h = rng.normal({4, 2, 3}, 0, 1),
               c = rng.normal({4, 2, 3}, 0, 1);
  const auto results = graph({{"x", x}, {"lstm_h0", h}, {"lstm_c0", c}});
  decltype(lstm)::State state;
  for (const Index i : {0, 2}) state.layers.push_back({{h[i], c[i]}, {h[i + 1], c[i + 1]}});
  const auto direct = lstm(x, state);
  CHECK(same_bits(results.at("y"), direct.y));
  CHECK(same_bits(results.at("lstm_h")[3], direct.state.layers[1].backward.h));
  CHECK(same_bits(results.at("lstm_c")[0], direct.state.layers[0].forward.c));
}

TEST_CASE("graph: wrong names and inputs are refused") {
  const Params params(1);
  const nn::Linear head(params / "head", 2, 3);
  nn::Graph graph(params), other(params);
  const auto x = graph.features("x", 2);
  CHECK(message([&] { graph.features("x", 2); }) ==
        "the graph has two inputs or two outputs named x");
  CHECK(message([&] { graph.features("1x", 2); }) ==
        "\"1x\" cannot be the name of an input or output, which is made of letters, digits and _");
  CHECK(message([&] { graph.features("z", 0); }) ==
        "input z of the graph has 0 features, but has to have 1 or more");
  CHECK(message([&] { other(head, x); }) == "a value belongs to another graph");
  CHECK(message([&] { graph(head, {}); }) == "a value of the graph is undefined");
  CHECK(message([&] { graph.output("y", {}); }) == "a value of the graph is undefined");
  graph.output("y", graph(head, x));
  CHECK(message([&] { graph({}); }) == "the graph's input x is missing");
  CHECK(message([&] {
          graph({{"x", ones({1, 1, 2})}, {"xs", ones({1})}});
        }).starts_with("the graph has no input \"xs\""));
  const TemporaryDirectory directory;
  CHECK(message([&] { nn::save_onnx(other, directory / "x.onnx"); }) ==
        "save_onnx: the graph has no output");
  const nn::DotAttention dot;
  CHECK(message([&] {
          graph(dot, x, x, {}, {.mask = ones({1, 1})});
        }) == "an attention in a graph may be causal, but has no mask: a mask is data");
}

TEST_CASE("graph: what a framework does not have is refused, and no file is written") {
  const auto refusals = [](const auto& make) {
    const TemporaryDirectory directory;
    const Params params(1);
    nn::Graph graph(params);
    const auto layer = make(params / "rnn");
    graph.output("y", graph(layer, graph.features("x", 2)));
    const std::string onnx = message([&] { nn::save_onnx(graph, directory / "m.onnx"); });
    const std::string torch = message([&] { nn::save_torch(graph, directory / "m.safetensors"); });
    const bool is_empty = directory.count() ==
                          (onnx == "nothing thrown" ? 1 : 0) + (torch == "nothing thrown" ? 2 : 0);
    CHECK(is_empty);
    return std::pair(onnx, torch);
  };
  using P = Params;
  const std::string onnx = "save_onnx: rnn has ", torch = "save_torch: rnn has ";
  const std::string no_onnx = ", which ONNX does not have", none = "nothing thrown";
  const std::string no_torch = ", which PyTorch does not have";
  CHECK(refusals([](const P& p) { return nn::Lstm(p, 2, 4, {.projection_size = 3}); }) ==
        std::pair(onnx + "a projection" + no_onnx, none));
  CHECK(refusals([](const P& p) { return nn::Lstm(p, 2, 4, {.peepholes = true}); }) ==
        std::pair(none, torch + "peepholes" + no_torch));
  CHECK(refusals([](const P& p) { return nn::Gru(p, 2, 4, {.reset = Reset::before}); }) ==
        std::pair(none, torch + "the reset before the product" + no_torch));
  CHECK(refusals([](const P& p) { return nn::Gru(p, 2, 4, {.layer_norm = true}); }) ==
        std::pair(onnx + "layer norm within the cell" + no_onnx,
                  torch + "layer norm within the cell" + no_torch));
  CHECK(refusals([](const P& p) { return nn::Lstm(p, 2, 4, {.cell_clip = 2}); }) ==
        std::pair(onnx + "a cell_clip" + no_onnx, torch + "a cell_clip" + no_torch));
  CHECK(refusals([](const P& p) { return nn::Lstm(p, 2, 4, {.variant = LstmVariant::coupled}); }) ==
        std::pair(onnx + "another variant of the LSTM" + no_onnx,
                  torch + "another variant of the LSTM" + no_torch));
  CHECK(refusals([](const P& p) { return nn::Rnn(p, 2, 4, {.dropout = {.zoneout_h = 0.1}}); }) ==
        std::pair(onnx + "zoneout" + no_onnx, torch + "zoneout" + no_torch));
}

TEST_CASE("graph: layers of other kinds or sizes are nodes of their own") {
  const auto nodes = [](const auto& make) {
    const Params params(1);
    nn::Graph graph(params);
    graph.output("y", graph(make(params / "rnn"), graph.features("x", 3)));
    std::vector<std::string> names;
    for (const nn::graph::Node& node : graph.nodes()) names.push_back(node.name);
    return names;
  };
  using P = Params;
  using Names = std::vector<std::string>;
  CHECK(nodes([](const P& p) { return nn::Stacked<nn::Rnn>(p, 3, 4); }) == Names{"rnn"});
  CHECK(nodes([](const P& p) {
          return nn::Stacked<nn::Rnn>(p, 3, 4, {.widths = {5, 4}});
        }) == Names{"rnn.0", "rnn.1"});
  CHECK(nodes([](const P& p) {
          return nn::Stacked(p, {},
                             std::vector{nn::Rnn(p / "0", 3, 4),
                                         nn::Rnn(p / "1", 4, 4, {.activation = Activation::relu})});
        }) == Names{"rnn.0", "rnn.1"});
  CHECK(nodes([](const P& p) {
          const nn::Gru layer(p / "shared", 3, 3);
          return nn::Stacked(p, {}, std::vector{layer, layer});
        }) == Names{"rnn.shared", "rnn.shared"});
}

TEST_CASE("graph: a program for PyTorch reads as one that was written") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 65, 64);
  const nn::Stacked<nn::Lstm> rnn(params / "rnn", 64, 128, {.dropout = 0.25});
  const nn::Linear head(params / "head", 128, 65);
  nn::Graph graph(params);
  graph.output("logits", graph(head, graph(rnn, graph(embed, graph.tokens("tokens")))));
  CHECK(nn::exchange::torch_program(graph, "lm.safetensors") ==
        R"("""A model of Reel: load() gives it with the weights of lm.safetensors."""
import pathlib

import torch
from safetensors.torch import load_file
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(65, 64)
        self.rnn = nn.LSTM(64, 128, num_layers=2, dropout=0.25)
        self.head = nn.Linear(128, 65)

    def forward(self, tokens, rnn_h0=None, rnn_c0=None):
        x1 = self.embed(tokens)
        x2, (x3, x4) = self.rnn(x1, None if rnn_h0 is None else (rnn_h0, rnn_c0))
        x5 = self.head(x2)
        # returns logits, rnn_h, rnn_c
        return x5, x3, x4


def load(file=pathlib.Path(__file__).with_name("lm.safetensors")):
    model = Model()
    model.load_state_dict(load_file(file))
    return model.eval()
)");
}

TEST_CASE("graph: the names of PyTorch's modules are kept free") {
  const Params params(1);
  const nn::Bidirectional<nn::Stacked<nn::Gru>> both(params / "both", 2, 3);
  const nn::Linear type(params / "type", 6, 2);
  nn::Graph graph(params);
  graph.output("y", graph(type, graph(both, graph.features("x", 2))));
  const nn::NamedTensors weights = nn::exchange::torch_weights(graph);
  for (const char* name :
       {"both.forward_.weight_ih_l1", "both.backward.weight_hh_l0", "type_.weight"})
    CHECK(weights.tensors.contains(name));
  // And read again.
  const Params fresh(2);
  const nn::Bidirectional<nn::Stacked<nn::Gru>> again(fresh / "both", 2, 3);
  const nn::Linear head(fresh / "type", 6, 2);
  CHECK(nn::load_weights(weights, nn::GateOrder::torch, fresh).complete());
  CHECK(same_bits(again.backward.layers[1].cell.w_hh.value(),
                  both.backward.layers[1].cell.w_hh.value()));
}
