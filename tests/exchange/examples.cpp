#include "examples.h"

#include <vector>

#include <reel/autograd/ops.h>

namespace reel::testing {
namespace {

constexpr Index T = 6, B = 4, vocabulary = 11, size = 8;

void language_model(nn::Graph& graph, const Params& p) {
  const nn::Embedding embed(p / "embed", vocabulary, size);
  const nn::Stacked<nn::Lstm> rnn(p / "rnn", size, size, {.layers = 3, .dropout = 0.2});
  const nn::Linear head(p / "head", embed);
  graph.output("logits", graph(head, graph(rnn, graph(embed, graph.tokens("tokens")))));
}

void tagger(nn::Graph& graph, const Params& p) {
  const nn::Stacked<nn::Bidirectional<nn::Gru>> rnn(p / "encoder" / "rnn", 5, size);
  const nn::LayerNorm norm(p / "norm", 2 * size, 1e-3);
  const nn::Linear head(p / "head", 2 * size, 3);
  const auto x = graph.features("x", 5), lengths = graph.lengths();
  graph.output("scores", graph.log_softmax(graph(head, graph(norm, graph(rnn, x, lengths)))));
}

void classifier(nn::Graph& graph, const Params& p) {
  const nn::Stacked<nn::Rnn> rnn(p / "rnn", 5, size, {.layers = 1},
                                 nn::RnnOptions{.activation = Activation::relu});
  const nn::Linear head(p / "head", size, 3, {.bias = false});
  const auto run = graph(rnn, graph.features("x", 5), graph.lengths());
  graph.output("logits", graph(head, graph.select(run.h, -1)));
}

void links(nn::Graph& graph, const Params& p) {
  const nn::Stacked<nn::Gru> residual(
      p / "residual", 5, size,
      {.layers = 3, .dropout = 0.1, .connection = nn::Connection::residual, .layer_norm = true});
  const nn::Stacked<nn::Lstm, nn::Bidirectional<nn::Rnn>> mixed(
      p / "mixed", size, size, {}, nn::LstmOptions{}, nn::RnnOptions{});
  const nn::Stacked<nn::Lstm> highway(p / "highway", 2 * size, 2 * size,
                                      {.layers = 2, .connection = nn::Connection::highway});
  const auto x = graph(residual, graph.features("x", 5));
  graph.output("y", graph(highway, graph(mixed, x)));
}

void directions(nn::Graph& graph, const Params& p) {
  const nn::Bidirectional<nn::Stacked<nn::Lstm>> stacks(p / "stacks", 5, size,
                                                        {.merge = nn::Merge::mean});
  const nn::Bidirectional<nn::Gru> summed(p / "summed", size, size, {.merge = nn::Merge::sum});
  const auto lengths = graph.lengths();
  const auto x = graph(stacks, graph.features("x", 5), lengths);
  const auto y = graph(summed, x, lengths);
  graph.output("y", graph.add(y, graph(summed, y, lengths)));  // once more, with other states
}

void attention(nn::Graph& graph, const Params& p) {
  const nn::Gru encoder(p / "encoder", 5, size), decoder(p / "decoder", 5, size);
  const nn::MultiHeadAttention heads(p / "heads", size, 2);
  const nn::GeneralAttention general(p / "general", size, size);
  const nn::AdditiveAttention additive(p / "additive", size, size, 7);
  const nn::DotAttention dot({.scaled = true});
  const auto lengths = graph.lengths();
  const auto memory = graph(encoder, graph.features("x", 5), lengths);
  const auto query = graph(decoder, graph.features("q", 5));
  auto y = graph(heads, query, memory, lengths);
  y = graph.concat(y, graph(general, query, memory, lengths));
  y = graph.concat(y, graph(additive, query, memory, lengths));
  y = graph.concat(y, graph(dot, query, memory, lengths));
  graph.output("contexts", y);
  graph.output("own", graph(heads, query, query, {}, {.causal = true}));
  graph.output("causal", graph(dot, query, query, {}, {.causal = true}));
}

void onnx_only(nn::Graph& graph, const Params& p) {
  const nn::Stacked<nn::Gru> before(p / "before", vocabulary, size, {.layers = 2},
                                    nn::GruOptions{.reset = Reset::before});
  const nn::Bidirectional<nn::Lstm> peepholes(p / "peepholes", size, size,
                                              nn::LstmOptions{.peepholes = true});
  const auto x = graph.one_hot(graph.tokens("tokens"), vocabulary);
  graph.output("y", graph.tanh(graph(peepholes, graph(before, x))));
}

void projection(nn::Graph& graph, const Params& p) {
  const nn::Stacked<nn::Lstm> rnn(p / "rnn", 5, size, {}, nn::LstmOptions{.projection_size = 3});
  graph.output("y", graph.relu(graph(rnn, graph.features("x", 5))));
}

}  // namespace

std::span<const ExchangeExample> exchange_examples() {
  static const std::vector<ExchangeExample> all{
      {"language_model", language_model}, {"tagger", tagger},
      {"classifier", classifier},         {"links", links},
      {"directions", directions},         {"attention", attention},
      {"onnx_only", onnx_only, false},    {"projection", projection, true, false}};
  return all;
}

nn::Graph ExchangeExample::made() const {
  const Params params(7);
  nn::Graph graph(params);
  build(graph, params);
  Rng rng(1);
  for (Param p : params.list()) p.set(p.value() + rng.normal(p.shape(), 0, 0.1));
  return graph;
}

std::map<std::string, Tensor> inputs_of(const nn::Graph& graph, Rng& rng) {
  std::map<std::string, Tensor> inputs;
  for (const nn::graph::Input& input : graph.inputs()) {
    std::vector<Index> sizes;
    for (const std::string& dim : input.dims)
      sizes.push_back(dim == "T" ? T : dim == "B" ? B : std::stoll(dim));
    const Shape shape{std::span<const Index>(sizes)};
    if (input.kind == nn::graph::InputKind::tokens)
      inputs[input.name] = rng.uniform(shape, 0, vocabulary).to(f64);
    else if (input.kind == nn::graph::InputKind::lengths)
      inputs[input.name] = tensor({B}, {6, 1, 4, 3}, i32);
    else
      inputs[input.name] = rng.normal(shape, 0, 1);
    if (input.kind == nn::graph::InputKind::tokens)
      inputs[input.name] = floor(inputs[input.name]).to(i32);
  }
  return inputs;
}

}  // namespace reel::testing
