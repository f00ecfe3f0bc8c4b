// Values of PyTorch, from golden/make_golden.py, against ours.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include <functional>

#include "golden_directory.h"

using namespace reel;

namespace {

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double largest = 0;
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  for (std::size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

Tensor rows(const Tensor& x, Index begin, Index end) { return slice(x, 0, begin, end); }

// One of PyTorch's layers: its parameters or their gradients under their own names.
struct Torch {
  const nn::NamedTensors& values;
  std::string suffix;  // "_l0", "_l1_reverse"
  const Tensor& operator()(const std::string& what) const { return values[what + suffix]; }
};

void give(Param param, const Tensor& value) { param.set(value); }

// PyTorch has two biases per gate where ours have one, except for the n gate of a GRU. The gradient
// of our bias equals that of either of the two.
void load(const nn::RnnCell& cell, const Torch& torch) {
  give(cell.w_ih, torch("weight_ih"));
  give(cell.w_hh, torch("weight_hh"));
  give(cell.b, torch("bias_ih") + torch("bias_hh"));
}
void load(const nn::LstmCell& cell, const Torch& torch) {
  give(cell.w_ih, torch("weight_ih"));
  give(cell.w_hh, torch("weight_hh"));
  give(cell.b, torch("bias_ih") + torch("bias_hh"));
  if (cell.w_hr.defined()) give(cell.w_hr, torch("weight_hr"));
}
void load(const nn::GruCell& cell, const Torch& torch) {
  const Index h = cell.output_size();
  give(cell.w_ih, torch("weight_ih"));
  give(cell.w_hh, torch("weight_hh"));
  const Tensor rz = rows(torch("bias_ih"), 0, 2 * h) + rows(torch("bias_hh"), 0, 2 * h);
  give(cell.b, concat({rz, rows(torch("bias_ih"), 2 * h, 3 * h)}, 0));
  give(cell.b_hn, rows(torch("bias_hh"), 2 * h, 3 * h));
}

template <class Cell>
void check_gradients_of(const Cell& cell, const Gradients& ours, const Torch& torch) {
  CHECK(largest_difference(ours[cell.w_ih], torch("weight_ih")) < 1e-10);
  CHECK(largest_difference(ours[cell.w_hh], torch("weight_hh")) < 1e-10);
  CHECK(largest_difference(ours[cell.b], torch("bias_ih")) < 1e-10);
  if constexpr (std::is_same_v<Cell, nn::LstmCell>)
    if (cell.w_hr.defined()) CHECK(largest_difference(ours[cell.w_hr], torch("weight_hr")) < 1e-10);
  if constexpr (std::is_same_v<Cell, nn::GruCell>) {
    const Index h = cell.output_size();
    CHECK(largest_difference(ours[cell.b_hn], rows(torch("bias_hh"), 2 * h, 3 * h)) < 1e-10);
  }
}

// Calls f(cell, suffix) for each layer and direction.
template <class L, class F>
void each_cell(const nn::Stacked<L>& stack, F f) {
  for (std::size_t i = 0; i < stack.layers.size(); ++i)
    f(stack.layers[i].cell, "_l" + std::to_string(i));
}
template <class L, class F>
void each_cell(const nn::Stacked<nn::Bidirectional<L>>& stack, F f) {
  for (std::size_t i = 0; i < stack.layers.size(); ++i) {
    f(stack.layers[i].forward.cell, "_l" + std::to_string(i));
    f(stack.layers[i].backward.cell, "_l" + std::to_string(i) + "_reverse");
  }
}

nn::HiddenState pick(const nn::HiddenState&, const Tensor& h, const Tensor&, Index i) {
  return {select(h, 0, i)};
}
nn::LstmState pick(const nn::LstmState&, const Tensor& h, const Tensor& c, Index i) {
  return {select(h, 0, i), select(c, 0, i)};
}

// A state from PyTorch's format, whose first axis is layers times directions.
template <class S>
nn::StackedState<S> unpack(const nn::StackedState<S>& like, const Tensor& h, const Tensor& c) {
  nn::StackedState<S> state;
  for (Index i = 0; i < h.shape()[0]; ++i) state.layers.push_back(pick(S{}, h, c, i));
  (void)like;
  return state;
}
template <class S>
nn::StackedState<nn::BidirectionalState<S>> unpack(
    const nn::StackedState<nn::BidirectionalState<S>>& like, const Tensor& h, const Tensor& c) {
  nn::StackedState<nn::BidirectionalState<S>> state;
  for (Index i = 0; i < h.shape()[0]; i += 2)
    state.layers.push_back({pick(S{}, h, c, i), pick(S{}, h, c, i + 1)});
  (void)like;
  return state;
}

// The last h (or c) of all layers and directions on a first axis.
template <class State>
Tensor pack(const State& state, bool cells, bool lstm) {
  const std::vector<Tensor> flat = nn::flatten(state);
  std::vector<Tensor> picked;
  for (std::size_t i = 0; i < flat.size(); ++i)
    if (!lstm || (i % 2 == 1) == cells) picked.push_back(flat[i]);
  return stack(picked);
}

nn::NamedTensors golden_values(const std::string& file, const std::string& name) {
  return nn::load_safetensors(REEL_GOLDEN_DIR "/" + file + ".safetensors").part(name + ".");
}

template <class Stack, class... Options>
void check_layers(const std::string& file, const std::string& name, const Options&... options) {
  CAPTURE(name);
  const nn::NamedTensors golden = golden_values(file, name);
  const nn::NamedTensors weights = golden.part("param."), gradients = golden.part("grad.");
  const bool lstm = golden.tensors.contains("c0");
  SequenceOptions sequence;
  if (golden.tensors.contains("lengths")) sequence.lengths = golden["lengths"];

  const Index blocks = name.starts_with("lstm") ? 4 : name.starts_with("gru") ? 3 : 1;
  const Index hidden_size = weights["weight_hh_l0"].size(0) / blocks;
  const Params params(0, f64);
  const Stack stack(params, golden["x"].size(-1), hidden_size, options...);
  each_cell(stack, [&](const auto& cell, const std::string& suffix) {
    load(cell, Torch{weights, suffix});
  });

  Tape tape;
  const Tensor x = tape.watch(golden["x"]), h0 = tape.watch(golden["h0"]);
  const Tensor c0 = lstm ? tape.watch(golden["c0"]) : Tensor();
  const auto [y, state] = stack(x, unpack(typename Stack::State{}, h0, c0), sequence);
  const Tensor h_n = pack(state, false, lstm);
  CHECK(largest_difference(y, golden["y"]) < 1e-10);
  CHECK(largest_difference(h_n, golden["h_n"]) < 1e-10);

  Tensor loss = sum(golden["cotangent.y"] * y) + sum(golden["cotangent.h_n"] * h_n);
  std::vector<Tensor> inputs{x, h0};
  if (lstm) {
    const Tensor c_n = pack(state, true, lstm);
    CHECK(largest_difference(c_n, golden["c_n"]) < 1e-10);
    loss = loss + sum(golden["cotangent.c_n"] * c_n);
    inputs.push_back(c0);
  }
  CHECK(largest_difference(loss, golden["loss"]) < 1e-10);
  const std::vector<Tensor> of_inputs = tape.gradient(loss, inputs, {.keep = true});
  const Gradients of_params = tape.gradient(loss, params);

  CHECK(largest_difference(of_inputs[0], gradients["x"]) < 1e-10);
  CHECK(largest_difference(of_inputs[1], gradients["h0"]) < 1e-10);
  if (lstm) CHECK(largest_difference(of_inputs[2], gradients["c0"]) < 1e-10);
  each_cell(stack, [&](const auto& cell, const std::string& suffix) {
    check_gradients_of(cell, of_params, Torch{gradients, suffix});
  });
}

// y and the last states of one direction, by the op.
Tensors run_op(const std::string& kind, const Tensor& x, const Tensor& w_ih, const Tensor& w_hh,
               const SequenceOptions& options) {
  if (kind.starts_with("rnn")) {
    const auto f = kind == "rnn" ? Activation::tanh : Activation::relu;
    const auto [y, h] = rnn(x, w_ih, w_hh, {}, {}, f, options);
    return {y, h};
  }
  if (kind == "gru") {
    const auto [y, h] = gru(x, w_ih, w_hh, {}, {}, {}, Reset::after, options);
    return {y, h};
  }
  const auto [y, h, c] = lstm(x, w_ih, w_hh, {}, {}, {}, options);
  return {y, h, c};
}

// Two layers in both directions over a packed batch, without biases and initial states.
void check_plain(const std::string& kind) {
  CAPTURE(kind);
  const nn::NamedTensors golden = golden_values("packed", kind + "_plain");
  Tape tape;
  const Tensor x = tape.watch(golden["x"]);
  std::vector<Tensor> leaves{x};
  std::vector<std::string> names{"x"};
  const auto weight = [&](const std::string& name) {
    names.push_back(name);
    return leaves.emplace_back(tape.watch(golden["param." + name]));
  };
  Tensor y = x;
  Tensors h, c;
  for (const char* layer : {"_l0", "_l1"}) {
    Tensors outputs;
    for (const char* direction : {"", "_reverse"}) {
      const std::string suffix = std::string(layer) + direction;
      const Tensor w_ih = weight("weight_ih" + suffix), w_hh = weight("weight_hh" + suffix);
      const Tensors out =
          run_op(kind, y, w_ih, w_hh, {.reverse = *direction != 0, .lengths = golden["lengths"]});
      outputs.push_back(out[0]);
      h.push_back(out[1]);
      if (out.size() == 3) c.push_back(out[2]);
    }
    y = concat(outputs, -1);
  }
  Tensor loss = sum(golden["cotangent.y"] * y) + sum(golden["cotangent.h_n"] * stack(h));
  CHECK(largest_difference(y, golden["y"]) < 1e-10);
  CHECK(largest_difference(stack(h), golden["h_n"]) < 1e-10);
  if (!c.empty()) {
    CHECK(largest_difference(stack(c), golden["c_n"]) < 1e-10);
    loss = loss + sum(golden["cotangent.c_n"] * stack(c));
  }
  const std::vector<Tensor> gradients = tape.gradient(loss, leaves);
  for (std::size_t i = 0; i < names.size(); ++i) {
    CAPTURE(names[i]);
    CHECK(largest_difference(gradients[i], golden["grad." + names[i]]) < 1e-10);
  }
}

}  // namespace

TEST_CASE("two layers in one direction have PyTorch's values and gradients") {
  check_layers<nn::Stacked<nn::Rnn>>("layers", "rnn.uni");
  check_layers<nn::Stacked<nn::Gru>>("layers", "gru.uni");
  check_layers<nn::Stacked<nn::Lstm>>("layers", "lstm.uni");
}

TEST_CASE("two layers in both directions have PyTorch's values and gradients") {
  check_layers<nn::Stacked<nn::Bidirectional<nn::Rnn>>>("layers", "rnn.bi");
  check_layers<nn::Stacked<nn::Bidirectional<nn::Gru>>>("layers", "gru.bi");
  check_layers<nn::Stacked<nn::Bidirectional<nn::Lstm>>>("layers", "lstm.bi");
}

TEST_CASE("layers unrolled from cells have them too") {
  check_layers<nn::Stacked<nn::Unroll<nn::RnnCell>>>("layers", "rnn.uni");
  check_layers<nn::Stacked<nn::Unroll<nn::GruCell>>>("layers", "gru.uni");
  check_layers<nn::Stacked<nn::Bidirectional<nn::Unroll<nn::LstmCell>>>>("layers", "lstm.bi");
}

TEST_CASE("packed batches have PyTorch's values and gradients") {
  check_layers<nn::Stacked<nn::Bidirectional<nn::Rnn>>>("packed", "rnn");
  check_layers<nn::Stacked<nn::Bidirectional<nn::Rnn>>>(
      "packed", "rnn_relu", nn::StackOptions{}, nn::BidirectionalOptions{},
      nn::RnnOptions{.activation = Activation::relu});
  check_layers<nn::Stacked<nn::Bidirectional<nn::Gru>>>("packed", "gru");
  check_layers<nn::Stacked<nn::Bidirectional<nn::Lstm>>>("packed", "lstm");
  check_layers<nn::Stacked<nn::Bidirectional<nn::Lstm>>>(
      "packed", "lstm_projection", nn::StackOptions{}, nn::LstmOptions{.projection_size = 2});
  check_layers<nn::Stacked<nn::Bidirectional<nn::Unroll<nn::GruCell>>>>("packed", "gru");
}

TEST_CASE("packed batches without biases and initial states have PyTorch's values and gradients") {
  for (const char* kind : {"rnn", "rnn_relu", "gru", "lstm"}) check_plain(kind);
}

TEST_CASE("the GRU of the paper has PyTorch's values and gradients") {
  const nn::NamedTensors golden = golden_values("layers", "gru_before.uni");
  const Params params(0, f64);
  const nn::Gru gru(params, 4, 5, {.reset = Reset::before});
  give(gru.cell.w_ih, golden["param.weight_ih"]);
  give(gru.cell.w_hh, golden["param.weight_hh"]);
  give(gru.cell.b, golden["param.bias"]);
  give(gru.cell.b_hn, zeros({5}, f64));

  Tape tape;
  const Tensor x = tape.watch(golden["x"]);
  const Tensor h0 = tape.watch(reshape(golden["h0"], {3, 5}));
  const auto [y, state] = gru(x, {h0});
  CHECK(largest_difference(y, golden["y"]) < 1e-10);
  const Tensor loss =
      sum(golden["cotangent.y"] * y) + sum(reshape(golden["cotangent.h_n"], {3, 5}) * state.h);
  const std::vector<Tensor> inputs = tape.gradient(loss, {x, h0}, {.keep = true});
  const Gradients gradients = tape.gradient(loss, params);
  CHECK(largest_difference(inputs[0], golden["grad.x"]) < 1e-10);
  CHECK(largest_difference(inputs[1], reshape(golden["grad.h0"], {3, 5})) < 1e-10);
  CHECK(largest_difference(gradients["w_ih"], golden["grad.weight_ih"]) < 1e-10);
  CHECK(largest_difference(gradients["w_hh"], golden["grad.weight_hh"]) < 1e-10);
  CHECK(largest_difference(gradients["b"], golden["grad.bias"]) < 1e-10);
  CHECK(largest_difference(gradients["b_hn"], rows(golden["grad.bias"], 10, 15)) < 1e-10);
}

TEST_CASE("ten Adam steps of a small LSTM language model follow PyTorch's losses") {
  const nn::NamedTensors golden = nn::load_safetensors(REEL_GOLDEN_DIR "/adam_lm.safetensors");
  const Params params(0, f64);
  const nn::Embedding embed(params / "embedding", 11, 6);
  const nn::Stacked<nn::Lstm> lstm(params / "lstm", 6, 8);
  const nn::Linear linear(params / "linear", 8, 11);
  const std::vector<std::pair<Param, std::string>> names{
      {embed.w, "embedding.weight"},
      {lstm.layers[0].cell.w_ih, "lstm.weight_ih_l0"},
      {lstm.layers[0].cell.w_hh, "lstm.weight_hh_l0"},
      {lstm.layers[0].cell.b, "lstm.bias_ih_l0"},
      {lstm.layers[1].cell.w_ih, "lstm.weight_ih_l1"},
      {lstm.layers[1].cell.w_hh, "lstm.weight_hh_l1"},
      {lstm.layers[1].cell.b, "lstm.bias_ih_l1"},
      {linear.w, "linear.weight"},
      {linear.b, "linear.bias"}};
  for (auto [param, name] : names) param.set(golden["initial." + name]);

  optim::Adam adam(params, {.learning_rate = 2e-3});
  nn::Stacked<nn::Lstm>::State state;
  for (Index step = 0; step < 10; ++step) {
    CAPTURE(step);
    Tape tape;
    const auto [y, next] = lstm(embed(select(golden["inputs"], 0, step)), state);
    const Tensor loss = cross_entropy(linear(y), select(golden["targets"], 0, step));
    CHECK(std::abs(loss.item() - golden["losses"].at({step})) < 1e-8);
    Gradients gradients = tape.gradient(loss, params);
    const double norm = optim::clip_by_norm(gradients, 0.23);
    CHECK(std::abs(norm - golden["grad_norms"].at({step})) < 1e-8);
    adam.step(gradients);
    state = detach(next);
  }
  for (const auto& [param, name] : names)
    CHECK(largest_difference(param.value(), golden["final." + name]) < 1e-8);
}

TEST_CASE("ctc_loss has PyTorch's values and gradients") {
  const auto golden = nn::load_safetensors(REEL_GOLDEN_DIR "/ctc.safetensors");
  for (const bool mean : {true, false}) {
    const std::string name = mean ? "mean" : "sum";
    Tape tape;
    const Tensor logits = tape.watch(golden["logits"]);
    const Tensor loss = ctc_loss(logits, golden["targets"],
                                 {.lengths = golden["lengths"],
                                  .target_lengths = golden["target_lengths"],
                                  .blank = 2,
                                  .reduction = mean ? LossReduction::mean : LossReduction::sum});
    CHECK(std::abs(loss.item() - golden[name + ".loss"].item()) < 1e-12);
    const Tensor gradient = tape.gradient(loss, {logits})[0];
    CHECK(largest_difference(gradient, golden[name + ".grad"]) < 1e-12);
  }
}
