// The code in the documentation, compiled and run. The pages quote the lines between the markers.
#include <doctest/doctest.h>

#include <cmath>
#include <iostream>
#include <numeric>

#include <reel/autograd/unit_cell.h>
#include <reel/reel.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;

namespace {

void check_close(const Tensor& found, std::initializer_list<double> expected) {
  REQUIRE(found.size() == static_cast<Index>(expected.size()));
  Index i = 0;
  for (double e : expected)
    CHECK(found.to_vector()[static_cast<std::size_t>(i++)] == doctest::Approx(e).epsilon(1e-3));
}

// [lstm_unit]
struct LstmUnit {
  static constexpr kernels::CellLayout layout{.sums = 4, .states = 2};

  static auto unit(const auto& sums, const auto& before) {
    const auto& [i_sum, f_sum, g_sum, o_sum] = sums;
    const auto& [h, c] = before;
    const auto i = sigmoid(i_sum);
    const auto f = sigmoid(f_sum);
    const auto g = tanh(g_sum);
    const auto o = sigmoid(o_sum);
    const auto c_next = f * c + i * g;
    return std::tuple(o * tanh(c_next), c_next);
  }
};
// [/lstm_unit]

// [own_cell]
// A recurrent unit with one gate (Zhou et al., 2016).
struct OneGateCell {
  using State = nn::HiddenState;

  OneGateCell(const Params& p, Index input_size, Index hidden_size)
      : gate(p / "gate", input_size + hidden_size, hidden_size),
        candidate(p / "candidate", input_size + hidden_size, hidden_size) {}

  nn::Output<State> operator()(const Tensor& x, const State& state, const nn::Mode&) const {
    const Tensor h = state.h.defined() ? state.h : zeros({x.size(0), output_size()}, x.dtype());
    const Tensor f = sigmoid(gate(concat({x, h}, -1)));
    const Tensor n = tanh(candidate(concat({x, f * h}, -1)));
    const Tensor next = (1 - f) * h + f * n;
    return {next, {next}};
  }
  Index output_size() const { return gate.w.shape()[0]; }

  nn::Linear gate, candidate;
};
// [/own_cell]

TEST_CASE("docs: the tape worked through by hand") {
  Params params(0, f64);
  Param w = params.create("w", {2}, nn::init::constant(0));
  w.set(tensor({2}, {2, 0.5}, f64));
  const Param b = params.create("b", {}, nn::init::constant(0.5));
  const Tensor x = tensor({2}, {0.5, -1}, f64);

  // [tape]
  Tape tape;
  const Tensor u = x * w;  // x = (0.5, -1), w = (2, 0.5)
  const Tensor v = u + b;  // b = 0.5, a scalar
  const Tensor y = tanh(v);
  const Tensor loss = sum(y);
  const std::size_t records = tape.size();
  const Gradients gradients = tape.gradient(loss, params, {.keep = true});
  const std::vector<Tensor> inner = tape.gradient(loss, {y, v, u});
  // [/tape]
  CHECK(records == 4);
  CHECK(u.trace().slot == 2);
  CHECK(v.trace().slot == 4);
  CHECK(y.trace().slot == 5);
  CHECK(loss.trace().slot == 6);
  check_close(u, {1, -0.5});
  check_close(v, {1.5, 0});
  check_close(y, {0.9051, 0});
  check_close(loss, {0.9051});
  check_close(gradients["w"], {0.0904, -1});
  check_close(gradients["b"], {1.1807});
  check_close(inner[0], {1, 1});
  check_close(inner[1], {0.1807, 1});
  check_close(inner[2], {0.1807, 1});
  CHECK(tape.size() == 0);
}

TEST_CASE("docs: the gradient of a gradient") {
  const Tensor start = tensor({2}, {0.5, -1}, f64);
  // [second_order]
  Tape tape;
  const Tensor x = tape.watch(start);
  const Tensor y = sum(tanh(x));
  const Tensor dy = tape.gradient(y, {x}, {.create_graph = true})[0];  // 1 - tanh²(x), recorded
  const Tensor ddy = tape.gradient(sum(dy), {x})[0];                   // -2 tanh(x) (1 - tanh²(x))
  // [/second_order]
  const auto expected = [](double at) {
    return -2 * std::tanh(at) * (1 - std::tanh(at) * std::tanh(at));
  };
  check_close(ddy, {expected(0.5), expected(-1)});
}

TEST_CASE("docs: a sequence in segments") {
  const Params params(1);
  const nn::Linear head(params / "head", 8, 1);
  const Tensor x = Rng(2).normal({400, 3, 2});
  // [segments]
  const nn::Lstm lstm(params / "lstm", 2, 8);
  Tape tape;
  const auto [y, last] = lstm(x, {}, nn::Eval{}, {.segment = 20, .outputs = false});
  const Tensor loss = sum(square(head(last.h)));  // y is undefined: no one asked for it
  const Gradients gradients = tape.gradient(loss, params);
  // [/segments]
  CHECK_FALSE(y.defined());
  Tape whole;
  const Gradients expected = whole.gradient(sum(square(head(lstm(x).state.h))), params);
  gradients.each([&](const auto& entry, const Tensor& gradient) {
    CHECK(max(abs(gradient - expected[entry->name])).item() <= 1e-5);
  });
}

TEST_CASE("docs: truncated backpropagation") {
  std::vector<std::int32_t> tokens(200);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (std::int32_t& token : tokens) token %= 7;
  const datasets::Windows windows(tokens, 3, 5);
  Params params(1);
  const nn::Embedding embed(params / "embed", 7, 4);
  const nn::Lstm lstm(params / "lstm", 4, 8);
  const nn::Linear head(params / "head", 8, 7);
  optim::Adam adam(params, {.learning_rate = 0.05});
  double last = 0;
  const auto train = [&](const Tensor& inputs, const Tensor& targets, const nn::LstmState& state) {
    // [train]
    Tape tape;
    const auto [y, next] = lstm(embed(inputs), state);
    const Tensor loss = cross_entropy(head(y), targets);
    adam.step(tape.gradient(loss, params));
    // [/train]
    last = loss.item();
    return next;
  };
  for (int epoch = 0; epoch < 10; ++epoch) {
    // [tbptt]
    nn::LstmState state;  // undefined tensors: zeros
    for (const auto& [inputs, targets] : windows) state = detach(train(inputs, targets, state));
    // [/tbptt]
    CHECK(state.h.shape() == Shape{3, 8});
  }
  CHECK(last < 1);
  {
    // [k1_k2]
    optim::Tbptt<nn::LstmState> tbptt(params, {.k1 = 5, .k2 = 20});
    const auto model = [&](const Tensor& inputs, const Tensor& targets,
                           const nn::LstmState& state) {
      const auto [y, next] = lstm(embed(inputs), state);
      return std::pair(cross_entropy(head(y), targets), next);
    };
    const auto update = [&](const Gradients& gradients, double loss) {
      adam.step(gradients);
      last = loss;
    };
    for (const auto& [inputs, targets] : windows) tbptt.run({inputs, targets}, model, update);
    // [/k1_k2]
    CHECK(tbptt.position() == 5 * windows.count());
  }
  CHECK(last < 1);

  Rng rng(1);
  std::vector<std::int32_t> text;
  const std::int32_t first = 3;
  {
    // [generate]
    const nn::Stepper step(embed, lstm);
    const nn::Stepper predict(head);
    auto last = step(full({1}, first, i32));
    for (int i = 0; i < 20; ++i) {
      const std::int32_t token = nn::sample(predict(last.y), {.temperature = 0.8}, rng);
      text.push_back(token);
      last = step(full({1}, token, i32), last.state);
    }
    // [/generate]
  }
  {
    // [whole_sequences]
    const nn::TokenStepper step(embed, lstm, head);
    const auto written =
        nn::generate(step, {{3}, {0, 1}},
                     {.max_length = 20, .sampling = {.temperature = 0.8, .min_p = 0.1}}, rng);
    const auto found = nn::beam_search(
        step, {{3}, {0, 1}}, {.beams = 4, .best = 2, .max_length = 20, .length_penalty = 0.6});
    // [/whole_sequences]
    CHECK(written[1].tokens.size() == 20);
    CHECK(found[0].size() == 2);
    CHECK(found[1][0].log_probability > -20);
  }
  {
    const std::vector<float> signal(10, 0.5f);
    std::vector<float> played;
    const nn::Lstm lstm(params / "effect", 1, 8);
    const nn::Linear head(params / "mix", 8, 1);
    // [stream]
    nn::Stream stream(lstm, head, reel::tanh);
    std::array<float, 1> out{};
    for (const float& sample : signal) {
      stream.step({&sample, 1}, out);
      played.push_back(out[0]);
    }
    stream.reset();  // the beginning of another sequence
    // [/stream]
    CHECK(played.size() == signal.size());
  }
  int learned = 0;
  for (std::size_t i = 1; i < text.size(); ++i) learned += text[i] == (text[i - 1] + 1) % 7;
  CHECK(learned > 9);  // three by chance
}

TEST_CASE("the precision of products") {
  const Tensor a = Rng(1).normal({3, 40}), b = Rng(2).normal({40, 2}), unrounded = matmul(a, b);
  Tensor y;
  // [precision]
  set_matmul_precision(Precision::bf16);  // for all threads
  {
    const PrecisionScope exact(Precision::f32);  // for this thread and this block
    y = matmul(a, b);
  }
  // [/precision]
  CHECK(testing::same_bits(y, unrounded));
  CHECK_FALSE(testing::same_bits(matmul(a, b), unrounded));
  set_matmul_precision(Precision::f32);
}

TEST_CASE("docs: optimizers") {
  Params params(1);
  const nn::Embedding embed(params / "embed", 7, 4);
  const nn::Lstm lstm(params / "lstm", 4, 8);
  const nn::Linear head(params / "head", 8, 7);
  std::vector<std::int32_t> tokens(61);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (std::int32_t& token : tokens) token %= 7;
  const datasets::Windows micro_batches(tokens, 3, 5);
  const auto loss_of = [&](const Tensor& inputs, const Tensor& targets) {
    return cross_entropy(head(lstm(embed(inputs)).y), targets);
  };
  const auto gradients_of = [&](const Tensor& inputs, const Tensor& targets) {
    Tape tape;
    return tape.gradient(loss_of(inputs, targets), params);
  };
  const auto validate = [&] {
    return loss_of(micro_batches[0].inputs, micro_batches[0].targets).item();
  };
  // [groups]
  optim::AdamW adamw(params, {.learning_rate = 1e-3,
                              .weight_decay = 0.1,
                              .decays = nn::matrices_only,
                              .groups = {{.params = "embed.*", .lazy_rows = true},
                                         {.params = "*.w_hh", .learning_rate_factor = 0.5},
                                         {.params = "head.*", .max_norm = 1}}});
  // [/groups]
  optim::Ema ema(params, 0.5);
  optim::ReduceOnPlateau plateau({.factor = 0.5, .patience = 0});
  const double before = validate();
  for (Index step = 1; step <= 1000; step += 10) {
    // [schedule]
    const optim::Schedule schedule = optim::Warmup{
        .steps = 100, .then = optim::CosineDecay{.learning_rate = 1e-3, .length = 900}};
    schedule.require_length(1000);  // of the run
    adamw.set_learning_rate(schedule.at(step) * plateau.factor());
    // [/schedule]
    // [accumulate]
    Gradients total;
    for (const auto& [inputs, targets] : micro_batches) total += gradients_of(inputs, targets);
    total *= 1.0 / static_cast<double>(micro_batches.count());
    adamw.step(total);
    // [/accumulate]
    // [average]
    ema.update();
    const double loss = nn::functional_call(params, ema.values(), validate);
    // [/average]
    plateau.update(loss);
    CHECK(loss <= before);
  }
  CHECK(validate() < before);
  CHECK(adamw.clip_count(2).steps == 100);
}

TEST_CASE("docs: padded buckets") {
  const std::vector<std::vector<std::int32_t>> words{{1, 2, 3}, {4}, {2, 2}, {3, 1, 4, 1}},
      tags{{0, 1, 0}, {1}, {0, 0}, {0, 0, 1, 0}};
  Params params(1);
  const nn::Embedding embed(params / "embed", 5, 4);
  const nn::Gru gru(params / "gru", 4, 8);
  const nn::Linear head(params / "head", 8, 2);
  optim::Adam adam(params, {.learning_rate = 0.05});
  const Rng rng(1);
  double last = 0;
  // [buckets]
  using namespace reel::datasets;
  const BucketedBatches batches(lengths_of(words), {.batch_size = 2}, rng.stream("batches"));
  for (int epoch = 1; epoch <= 60; ++epoch) {
    LossMean loss;
    for (const auto& batch : batches.epoch(epoch)) {
      const auto [x, lengths] = pad(pick(words, batch), 0);
      const Tensor y = pad(pick(tags, batch), 0).x, weights = length_mask(lengths, x.size(0));
      Tape tape;
      const Tensor logits = head(gru(embed(x), {.lengths = lengths}).y);
      const Tensor mean_loss = cross_entropy(logits, y, weights);
      loss.add(mean_loss.item(), sum(weights).item());
      adam.step(tape.gradient(mean_loss, params));
    }
    last = loss.mean();
  }
  // [/buckets]
  CHECK(last < 0.1);
}

TEST_CASE("docs: checking gradients") {
  // [check_gradients]
  Params params(1, f64);  // differences of f32 numbers would be too coarse
  const nn::Lstm lstm(params / "lstm", 3, 4);
  const nn::Linear head(params / "head", 4, 5);
  Rng rng(2);
  const Tensor x = rng.normal({6, 2, 3}, 0, 1, f64), targets = full({6, 2}, 1, i32);
  const GradientReport report = check_gradients(
      [&] { return cross_entropy(head(lstm(x).y), targets); }, params, {.order = 2});
  std::cout << report.str();  // a line for each parameter and order; report.ok is the verdict
  // [/check_gradients]
  CHECK(report.ok);
}

TEST_CASE("docs: stacks and states") {
  const Params params(1);
  // [stacks]
  const nn::Stacked<nn::Lstm> plain(params / "plain", 64, 128, {.layers = 2, .dropout = 0.3});
  const nn::Stacked<nn::Gru> deep(
      params / "deep", 64, 128,
      {.layers = 4, .connection = nn::Connection::residual, .layer_norm = true});
  const nn::Stacked<nn::Gru, nn::Bidirectional<nn::Lstm>> mixed(params / "mixed", 64, 128,
                                                                {.widths = {256, 128}});
  const nn::Bidirectional<nn::Stacked<nn::Rnn>> both(params / "both", 64, 128,
                                                     {.merge = nn::Merge::sum});
  const nn::WithInitialState<nn::Lstm> started(params / "started", 64, 128);
  // [/stacks]
  const Tensor x = Rng(2).normal({3, 2, 64});
  CHECK(plain(x).y.shape() == Shape{3, 2, 128});
  CHECK(deep(x).y.shape() == Shape{3, 2, 128});
  CHECK(mixed(x).y.shape() == Shape{3, 2, 256});
  CHECK(both(x).y.shape() == Shape{3, 2, 128});
  CHECK(started(x).y.shape() == Shape{3, 2, 128});
  // [state_rows]
  nn::Stacked<nn::Gru>::State state = deep(x).state;
  const std::vector<std::int32_t> survivors{1, 1, 0};  // the second row twice, then the first
  state = nn::select_rows(state, tensor({3}, survivors));

  nn::NamedTensors content = nn::from_params(params);
  content.insert("", nn::from_state(state));  // "state.layers.0.h", ...
  state = nn::to_state<nn::Stacked<nn::Gru>::State>(content);
  // [/state_rows]
  CHECK(state.layers[3].h.shape() == Shape{3, 128});
}

TEST_CASE("docs: a user-defined cell") {
  Params params(3, f64);
  // [use_cell]
  using OneGate = nn::Stacked<nn::Bidirectional<nn::Unroll<OneGateCell>>>;
  const OneGate layers(params, 3, 4, {.layers = 2});
  // [/use_cell]
  Rng rng(4);
  const Tensor x = rng.normal({3, 2, 3}, 0, 1, f64);
  const std::vector<std::int32_t> lengths{3, 2};
  const auto y = [&] { return layers(x, {}, nn::Eval{}, {.lengths = tensor({2}, lengths)}).y; };
  CHECK(y().shape() == Shape{3, 2, 8});
  CHECK(check_gradients(y, params, {.mode = GradcheckOptions::Mode::fast}).ok);
}

TEST_CASE("docs: the LSTM as a function of a unit is the LSTM") {
  const CellSpec cell = cell_spec<LstmUnit>("lstm of the docs");
  const CellSpec* const cells[] = {&cell};
  const op::RecurrentOp over_sequence("lstm_of_the_docs", cells, {.states = {"h0", "c0"}});
  Rng rng(1);
  Tape tape;
  const auto draw = [&](const Shape& shape) { return tape.watch(rng.normal(shape)); };
  const Tensor x = draw({6, 3, 4}), w_ih = draw({20, 4}), w_hh = draw({20, 5}), b = draw({20});
  const CellInputs inputs{w_ih, w_hh, b};
  const Tensor y = over_sequence(cell, x, {&inputs, 1}, {}, {})[0];
  const Tensor same = lstm(x, w_ih, w_hh, b, {}, {}).y;
  CHECK(testing::same_bits(y, same));
  const auto gradients = tape.gradient(sum(square(y)), {x, w_ih, w_hh, b}, {.keep = true});
  const auto expected = tape.gradient(sum(square(same)), {x, w_ih, w_hh, b});
  for (std::size_t i = 0; i < gradients.size(); ++i)
    CHECK(testing::same_bits(gradients[i], expected[i]));
}

TEST_CASE("docs: an LSTM's step in ops is 15 records") {
  Tape tape;
  const Tensor h = tape.watch(zeros({2, 3}));
  lstm_step(tape.watch(zeros({2, 12})), h, h, tape.watch(zeros({12, 3})));
  CHECK(tape.size() == 15);
}

TEST_CASE("docs: weights and models of other frameworks") {
  const TemporaryDirectory directory;
  const std::filesystem::path folder = directory.path(), file = folder / "lm.safetensors";
  {
    const Params params(5);
    const nn::Embedding embed(params / "embed", 65, 64);
    const nn::Stacked<nn::Lstm> rnn(params / "rnn", 64, 128);
    const nn::Linear head(params / "head", 128, 65);
    // [save_graph]
    nn::Graph graph(params);
    const auto tokens = graph.tokens("tokens");
    graph.output("logits", graph(head, graph(rnn, graph(embed, tokens))));
    nn::save_onnx(graph, folder / "lm.onnx");
    nn::save_torch(graph, folder / "lm.safetensors");  // and lm.py, with load()
    // [/save_graph]
    CHECK(directory.count() == 3);
  }
  // [load_torch]
  Params params;
  const nn::Embedding embed(params / "embed", 65, 64);
  const nn::Stacked<nn::Lstm> rnn(params / "rnn", 64, 128);
  const nn::Linear head(params / "head", 128, 65);
  nn::load_torch(file, params);
  // [/load_torch]
  const Tensor tokens = tensor({3, 1}, {1, 2, 3}, i32);
  const Tensor read = nn::load_onnx(folder / "lm.onnx")({{"tokens", tokens}}).at("logits");
  CHECK(max(abs(head(rnn(embed(tokens)).y) - read)).item() < 1e-6);
}

TEST_CASE("docs: a state that was not detached is refused") {
  Params params(1);
  const nn::Lstm lstm(params, 3, 3);
  const Tensor x = ones({2, 2, 3});
  nn::LstmState state;
  {
    Tape tape;
    state = lstm(x).state;
  }
  Tape tape;
  CHECK_THROWS_WITH_AS(
      lstm(x, state),
      doctest::Contains("lstm: h0 was recorded on another tape or before this one was used up; "
                        "detach() carries its value across windows ("),
      StaleTensorError);
}

TEST_CASE("docs: errors name the place") {
  const Tensor a = zeros({2, 3}), b = zeros({4, 5});
  CHECK_THROWS_WITH_AS(matmul(a, b),
                       doctest::Contains("matmul: the inner sizes 3 of a and 4 of b differ; "
                                         "a is f32 [2, 3], b is f32 [4, 5] ("),
                       ShapeError);
}

}  // namespace
