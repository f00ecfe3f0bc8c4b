// The recurrent layers: properties that no golden value shows.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include <cmath>

#include "testing.h"

using namespace reel;
using testing::error_of;
using testing::same_bits;

namespace {

void check_close(const Tensor& a, const Tensor& b, double tolerance = 1e-12) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::abs(x[i] - y[i]) <= tolerance);
}

Tensor draw(const Shape& shape, std::uint64_t seed) { return Rng(seed).normal(shape, 0, 1, f64); }

// A layer's output and last state projected onto fixed random directions: a scalar that depends on
// every part of both.
template <class State>
Tensor project(const nn::Output<State>& output) {
  Tensor total = sum(output.y * draw(output.y.shape(), 77));
  std::uint64_t seed = 78;
  for (const Tensor& s : nn::flatten(output.state))
    total = total + sum(s * draw(s.shape(), seed++));
  return total;
}

struct Case {
  SequenceOptions options;
  const char* name;
};
const std::vector<Case>& cases() {
  static const std::vector<std::int32_t> lengths{4, 0, 2, 3, 1};
  static const std::vector<Case> all{
      {{}, "forward"},
      {{.reverse = true}, "reverse"},
      {{.lengths = tensor({5}, std::span<const std::int32_t>(lengths))}, "lengths"},
      {{.reverse = true, .lengths = tensor({5}, std::span<const std::int32_t>(lengths))},
       "reverse, lengths"}};
  return all;
}

template <class L, class C, class Options>
void check_layer_is_unrolled_cell(const Options& options) {
  const Params params(1, f64), copy = params;
  const L layer(params, 3, 4, options);
  const Params cloned = params.clone();
  const nn::Unroll<C> unrolled(cloned, 3, 4, options);
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    Tape tape;
    const Tensor x = tape.watch(draw({4, 5, 3}, 5));
    typename L::State initial;
    std::uint64_t seed = 6;
    initial = initial.map([&](const Tensor&) { return tape.watch(draw({5, 4}, seed++)); });
    const auto fused = layer(x, initial, nn::Eval{}, c.options);
    const auto stepwise = unrolled(x, initial, nn::Eval{}, c.options);
    check_close(fused.y, stepwise.y);
    const Tensor a = project(fused), b = project(stepwise);
    std::vector<Tensor> inputs = nn::flatten(initial);
    inputs.push_back(x);
    const auto of_fused = tape.gradient(a, inputs, {.keep = true});
    const auto of_stepwise = tape.gradient(b, inputs, {.keep = true});
    for (std::size_t i = 0; i < inputs.size(); ++i) check_close(of_fused[i], of_stepwise[i]);
    const Gradients ga = tape.gradient(a, params, {.keep = true}), gb = tape.gradient(b, cloned);
    for (const Param& p : params.list()) check_close(ga[p], gb[p.name()]);
  }
}

// A user-defined cell: ten lines of ops, no base class, none of the library's recurrent kernels.
struct LeakyCell {
  using State = nn::HiddenState;
  LeakyCell(const Params& p, Index input_size, Index hidden_size)
      : in(p / "in", input_size, hidden_size), back(p / "back", hidden_size, hidden_size) {}
  nn::Output<State> operator()(const Tensor& x, const State& state, const nn::Mode&) const {
    const Tensor h = state.h.defined() ? state.h : zeros({x.size(0), output_size()}, x.dtype());
    const Tensor next = 0.9 * h + 0.1 * reel::tanh(in(x) + back(h));
    return {next, {next}};
  }
  Index output_size() const { return back.w.shape()[0]; }
  nn::Linear in, back;
};

}  // namespace

TEST_CASE("a fused layer is its cell, step by step: values, gradients, directions, lengths") {
  check_layer_is_unrolled_cell<nn::Rnn, nn::RnnCell>(nn::RnnOptions{});
  check_layer_is_unrolled_cell<nn::Rnn, nn::RnnCell>(
      nn::RnnOptions{.activation = Activation::relu});
  check_layer_is_unrolled_cell<nn::Gru, nn::GruCell>(nn::GruOptions{});
  check_layer_is_unrolled_cell<nn::Gru, nn::GruCell>(nn::GruOptions{.reset = Reset::before});
  check_layer_is_unrolled_cell<nn::Lstm, nn::LstmCell>(nn::LstmOptions{});
}

TEST_CASE_TEMPLATE("gradients at every step for sequences of 1 to 8 steps", L, nn::Rnn, nn::Gru,
                   nn::Lstm) {
  for (Index steps = 1; steps <= 8; ++steps) {
    CAPTURE(steps);
    const Params params(3, f64);
    const L layer(params, 2, 3);
    const GradientReport report =
        check_gradients([&](std::span<const Tensor> in) { return project(layer(in[0])); }, params,
                        {{"x", draw({steps, 2, 2}, 9)}});
    CHECK_MESSAGE(report.ok, report.str());
  }
}

TEST_CASE_TEMPLATE("second order through the fused layers", L, nn::Rnn, nn::Gru, nn::Lstm) {
  const Params params(3, f64);
  const nn::Stacked<nn::Bidirectional<L>> layer(params, 2, 2);
  const GradientReport report = check_gradients(
      [&](std::span<const Tensor> in) { return project(layer(in[0])); }, params,
      {{"x", draw({3, 2, 2}, 9)}}, {.order = 2, .mode = GradcheckOptions::Mode::fast});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE_TEMPLATE("a padded batch gives what each sequence gives alone", L, nn::Rnn, nn::Gru,
                   nn::Lstm) {
  const Params params(4, f64);
  const nn::Stacked<nn::Bidirectional<L>> layer(params, 2, 3);
  const Tensor x = draw({6, 3, 2}, 10);
  const std::vector<std::int32_t> lengths{6, 1, 4};
  const auto batch =
      layer(x, {}, nn::Eval{}, {.lengths = tensor({3}, std::span<const std::int32_t>(lengths))});
  for (Index row = 0; row < 3; ++row) {
    CAPTURE(row);
    const Index length = lengths[static_cast<std::size_t>(row)];
    const auto alone = layer(slice(slice(x, 1, row, row + 1), 0, 0, length));
    const Tensor ours = slice(batch.y, 1, row, row + 1);
    CHECK(same_bits(slice(ours, 0, 0, length), alone.y));
    const Tensor padding = slice(ours, 0, length, 6);
    CHECK(same_bits(padding, zeros(padding.shape(), f64)));
    const auto last = nn::flatten(batch.state), single = nn::flatten(alone.state);
    for (std::size_t i = 0; i < last.size(); ++i)
      CHECK(same_bits(slice(last[i], 0, row, row + 1), single[i]));
  }
}

TEST_CASE_TEMPLATE("backwards over a sequence is forwards over its mirror image", L, nn::Rnn,
                   nn::Gru, nn::Lstm) {
  const Params params(5, f64);
  const L layer(params, 3, 4);
  const Tensor x = draw({7, 2, 3}, 11);
  CHECK(same_bits(layer(x, {}, nn::Eval{}, {.reverse = true}).y, flip(layer(flip(x, 0)).y, 0)));
}

TEST_CASE_TEMPLATE("the carried state goes on where the last window ended", L, nn::Rnn, nn::Gru,
                   nn::Lstm) {
  const Params params(6, f64);
  const nn::Stacked<L> layer(params, 3, 4);
  const Tensor x = draw({8, 2, 3}, 12);
  const auto whole = layer(x);
  const auto first = layer(slice(x, 0, 0, 5));
  const auto second = layer(slice(x, 0, 5, 8), detach(first.state));
  CHECK(same_bits(concat({first.y, second.y}, 0), whole.y));
  CHECK(same_bits(nn::flatten(second.state)[1], nn::flatten(whole.state)[1]));

  // Without detach the gradient of both windows together is that of the whole sequence; with it,
  // the first window gets no gradient from the second's loss.
  const auto gradient_of_x = [&](bool cut) {
    Tape tape;
    const Tensor input = tape.watch(x);
    const auto a = layer(slice(input, 0, 0, 5));
    const auto b = layer(slice(input, 0, 5, 8), cut ? detach(a.state) : a.state);
    return tape.gradient(sum(b.y), {input})[0];
  };
  Tape tape;
  const Tensor input = tape.watch(x);
  const Tensor full = tape.gradient(sum(slice(layer(input).y, 0, 5, 8)), {input})[0];
  check_close(gradient_of_x(false), full);
  const Tensor cut = gradient_of_x(true);
  CHECK(same_bits(slice(cut, 0, 0, 5), zeros({5, 2, 3}, f64)));
  CHECK(abs(slice(cut, 0, 5, 8)).to_vector()[0] > 0);
}

TEST_CASE_TEMPLATE("bits do not depend on the number of threads", L, nn::Rnn, nn::Gru, nn::Lstm) {
  const testing::ThreadsScope restore;
  const auto run = [&](int n) {
    set_threads(n);
    const Params params(7);
    const nn::Stacked<nn::Bidirectional<L>> layer(params, 5, 17);
    Tape tape;
    const auto [y, state] = layer(Rng(13).normal({9, 23, 5}));
    return std::pair(y.detach(), tape.gradient(sum(square(y)), params));
  };
  const auto [y, gradients] = run(1);
  for (int n : {2, 3, 4, 8}) {
    CAPTURE(n);
    const auto again = run(n);
    CHECK(same_bits(y, again.first));
    gradients.each([&](const auto& entry, const Tensor& g) {
      CHECK_MESSAGE(same_bits(g, again.second[entry->name]), entry->name);
    });
  }
}

TEST_CASE_TEMPLATE("a single row whose products are split by columns gives equal results", L,
                   nn::Rnn, nn::Gru, nn::Lstm) {
  const testing::ThreadsScope restore;
  // Enough multiplications per step, even for the RNN, that its product is split over threads.
  const Index units = std::is_same_v<L, nn::Rnn> ? 2048 : 1200;
  const Params params(7);
  const L layer(params, 1, units);
  const auto run = [&](int n) {
    set_threads(n);
    Tape tape;
    const auto [y, state] = layer(Rng(13).normal({2, 1, 1}));
    return std::pair(y.detach(), tape.gradient(sum(square(y)), params));
  };
  const auto [y, gradients] = run(1);
  for (int n : {2, 3, 8}) {
    const auto again = run(n);
    CHECK(same_bits(y, again.first));
    gradients.each([&](const auto& entry, const Tensor& g) {
      CHECK_MESSAGE(same_bits(g, again.second[entry->name]), entry->name);
    });
  }
}

TEST_CASE("a layer without units has empty results and gradients") {
  const Tensor x = Rng(1).normal({3, 2, 4}), w_ih = zeros({0, 4}), w_hh = zeros({0, 0}),
               b = zeros({0}), h0 = zeros({2, 0});
  Tape tape;
  const Tensor input = tape.watch(x), bias = tape.watch(b);
  const Tensor y = lstm(input, w_ih, w_hh, bias, h0, h0).y;
  CHECK(y.shape() == Shape{3, 2, 0});
  const auto gradients = tape.gradient(sum(y), {input, bias});
  CHECK(same_bits(gradients[0], zeros({3, 2, 4})));
  CHECK(gradients[1].shape() == Shape{0});
}

TEST_CASE("a user's cell is stacked, run in both directions, masked and checked like ours") {
  const Params params(8, f64);
  const nn::Stacked<nn::Bidirectional<nn::Unroll<LeakyCell>>> layer(params, 2, 3);
  const std::vector<std::int32_t> lengths{3, 1};
  const SequenceOptions options{.lengths = tensor({2}, std::span<const std::int32_t>(lengths))};
  const GradientReport report = check_gradients(
      [&](std::span<const Tensor> in) { return project(layer(in[0], {}, nn::Eval{}, options)); },
      params, {{"x", draw({3, 2, 2}, 14)}}, {.order = 2, .mode = GradcheckOptions::Mode::fast});
  CHECK_MESSAGE(report.ok, report.str());
  CHECK(params["1.backward.back.w"].shape() == Shape{3, 3});
}

TEST_CASE("parameters are named by their place and drawn as PyTorch draws them") {
  const Params params(9);
  const nn::Stacked<nn::Lstm> lstm(params / "lstm", 10, 100);
  std::vector<std::string> names;
  for (const Param& p : params.list()) names.push_back(p.name());
  CHECK(names == std::vector<std::string>{"lstm.0.w_ih", "lstm.0.w_hh", "lstm.0.b", "lstm.1.w_ih",
                                          "lstm.1.w_hh", "lstm.1.b"});
  CHECK(params.count() == 4 * 100 * (10 + 100 + 1) + 4 * 100 * (100 + 100 + 1));
  const auto w = params["lstm.0.w_hh"].value().values<float>();
  const auto [low, high] = std::ranges::minmax(w);
  CHECK(low >= -0.1f);
  CHECK(high <= 0.1f);
  CHECK(low < -0.0999f);
  CHECK(high > 0.0999f);
  const auto b = params["lstm.0.b"].value().values<float>();
  for (std::size_t i = 0; i < 400; ++i)
    if (i >= 100 && i < 200)
      CHECK(b[i] == 1);
    else
      CHECK(std::abs(b[i]) <= 0.2f);  // the sum of two draws
  CHECK(std::ranges::max(b.subspan(200)) > 0.15f);

  const Params drawn(9);
  const nn::Lstm plain(drawn, 10, 100, {.forget_bias = std::nullopt});
  CHECK(std::abs(plain.cell.b.value().at({150})) <= 0.2);

  const Params chosen(9);
  const nn::Gru gru(chosen, 4, 4,
                    {.weight_init = nn::init::orthogonal(), .bias_init = nn::init::constant(0.25)});
  CHECK(gru.cell.b.value().at({11}) == 0.25);
  CHECK(gru.cell.b_hn.value().at({3}) == 0.25);
  CHECK(sum(square(gru.cell.w_hh.value())).item() == doctest::Approx(12));
}

TEST_CASE("initial values: Xavier's bound, orthogonal blocks") {
  Rng rng(3);
  const Tensor x = nn::init::xavier_uniform()(rng, {20, 10}, f64);
  CHECK(max(abs(x)).item() <= std::sqrt(6.0 / 30));
  CHECK(max(abs(x)).item() > 0.9 * std::sqrt(6.0 / 30));
  const Tensor w = nn::init::orthogonal()(rng, {12, 4}, f64);
  Tensor identity = zeros({4, 4}, f64);
  for (std::size_t i = 0; i < 4; ++i) identity.edit<double>()[5 * i] = 1;
  for (Index block = 0; block < 3; ++block) {
    const Tensor square = slice(w, 0, 4 * block, 4 * block + 4);
    check_close(matmul(square, square, true), identity, 1e-14);
  }
  const Tensor wide = nn::init::orthogonal()(rng, {4, 9}, f64);
  check_close(matmul(wide, wide, false, true), identity, 1e-14);
}

TEST_CASE("dropout between the layers of a stack acts while training alone, and is replayed") {
  const Params params(10, f64);
  const nn::Stacked<nn::Gru> layer(params, 2, 8, {.layers = 2, .dropout = 0.5});
  const Tensor x = draw({3, 4, 2}, 15);
  const auto train = [&](std::uint64_t seed) {
    Rng rng(seed);
    return layer(x, {}, nn::Train{rng}).y;
  };
  CHECK(same_bits(train(1), train(1)));
  CHECK_FALSE(same_bits(train(1), train(2)));
  CHECK_FALSE(same_bits(train(1), layer(x).y));
  CHECK(same_bits(layer(x).y, layer(x).y));
  const GradientReport report = check_gradients(
      [&](std::span<const Tensor> in) {
        Rng rng(4);
        return project(layer(in[0], {}, nn::Train{rng}));
      },
      params, {{"x", x}}, {.mode = GradcheckOptions::Mode::fast});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("arguments that do not fit a layer are reported before any work") {
  const Params params(11);
  const nn::Lstm lstm(params / "lstm", 3, 4);
  const auto message = [](auto f) { return error_of<Error>(f); };
  const auto contains = [](const std::string& text, const std::string& part) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  };
  contains(message([&] {
             lstm(zeros({5, 2, 7}));
           }),
           "lstm: x has 7 features, but the layer takes 3; x is f32 [5, 2, 7]");
  contains(message([&] { lstm(zeros({5, 2, 7})); }), ", in module lstm)");
  contains(message([&] { lstm(zeros({5, 2, 7})); }), "test_recurrent.cpp");
  contains(message([&] { lstm(zeros({2, 3})); }), "x must be [T, B, D]");
  contains(message([&] { lstm(zeros({0, 2, 3})); }), "the sequence has no steps");
  contains(message([&] { lstm(zeros({5, 2, 3}, f64)); }), "the arguments differ in dtype");
  contains(message([&] {
             lstm(zeros({5, 2, 3}), {zeros({3, 4}), zeros({2, 4})});
           }),
           "lstm: the state is f32 [3, 4], but has to be [2, 4] for x [5, 2, 3] (");
  const nn::LstmCell cell(params / "cell", 3, 4);
  contains(message([&] {
             cell(zeros({2, 7}));
           }),
           "LstmCell cell: x is f32 [2, 7], but its last axis must have 3 elements (");
  const std::vector<std::int32_t> lengths{5, 6};
  contains(message([&] {
             lstm(zeros({5, 2, 3}), {}, nn::Eval{},
                  {.lengths = tensor({2}, std::span<const std::int32_t>(lengths))});
           }),
           "between 0 and 5; one is 6 (");
  contains(message([&] { lstm(zeros({5, 2, 3}), {.lengths = ones({2})}); }), "they are f32 [2] (");
  contains(message([&] {
             lstm(zeros({5, 2, 3}), {.lengths = tensor({3}, {5, 6, 7}, i32)});
           }),
           "lstm: lengths must be i32 [2], one for each row of x [5, 2, 3], and between 0 and 5; "
           "they are i32 [3] (");
  contains(message([&] { lstm(zeros({5, 2, 3}), {.lengths = Tensor()}); }), "they are undefined (");
  contains(message([&] { nn::Unroll<nn::RnnCell>(params / "unroll", 3, 4)(Tensor()); }),
           "Unroll: x is undefined (");
  contains(message([&] { nn::Lstm(params / "lstm", 3, 4); }), "parameter lstm.w_ih exists already");
  contains(message([&] { nn::Gru(params / "gru", 0, 4); }), "input_size must be positive, not 0");
  contains(message([&] { nn::Stacked<nn::Gru>(params / "s", 3, 4, {.layers = 0}); }),
           "layers must be positive, not 0");
  contains(message([&] { nn::Stacked<nn::Gru>(params / "s", 3, 4, {.dropout = 1}); }),
           "must be in [0, 1), not 1");
  const nn::Stacked<nn::Lstm> two(params / "two", 3, 4);
  nn::Stacked<nn::Lstm>::State one;
  one.layers.resize(1);
  contains(message([&] { two(zeros({5, 2, 3}), one); }), "the state has 1 layers, the stack 2");
}
