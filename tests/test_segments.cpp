// SequenceOptions::segment: sequences in segments that the backward pass recomputes.
#include <doctest/doctest.h>

#include <cmath>

#include <reel/reel.h>

#include "testing.h"

using namespace reel;
using testing::error_of;
using testing::same_bits;

namespace {

double difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  return max(abs(a - b)).item();
}

Tensor draw(const Shape& shape, std::uint64_t seed, DType dtype = f64) {
  return Rng(seed).normal(shape, 0, 1, dtype);
}

Tensor lengths_of(std::initializer_list<std::int32_t> lengths) {
  return tensor({static_cast<Index>(lengths.size())}, std::span(lengths.begin(), lengths.size()));
}

constexpr Index steps = 7, rows = 5, features = 3, units = 4;

// y and the last state with the gradients of a projection of both.
struct Run {
  Tensor y;
  std::vector<Tensor> state;
  std::vector<Tensor> of_inputs;  // x, then the tensors of the first state
  Gradients of_params;
};

template <class L>
Run run(const L& layer, const Params& params, const SequenceOptions& options, bool given_state,
        nn::Mode mode = nn::Eval{}) {
  Tape tape;
  const Tensor x = tape.watch(draw({steps, rows, features}, 5));
  std::vector<Tensor> inputs{x};
  typename L::State state;
  if (given_state) {
    std::uint64_t seed = 6;
    state = layer(x.detach()).state.map([&](const Tensor& s) {
      return inputs.emplace_back(tape.watch(draw(s.shape(), seed++)));
    });
  }
  const auto [y, last] = layer(x, state, mode, options);
  std::uint64_t seed = 77;
  Tensor loss = options.outputs ? sum(y * draw(y.shape(), seed)) : scalar(0, f64);
  Run result{y.detach(), {}, {}, {}};
  for (const Tensor& s : nn::flatten(last)) {
    loss = loss + sum(s * draw(s.shape(), ++seed));
    result.state.push_back(s.detach());
  }
  result.of_inputs = tape.gradient(loss, inputs, {.keep = true});
  result.of_params = tape.gradient(loss, params);
  return result;
}

// Rows of x and states are computed independently, so values and their gradients are bit-identical;
// weight gradients are sums over all steps, which segments split.
void check_same(const Run& whole, const Run& segments) {
  if (segments.y.defined()) CHECK(same_bits(whole.y, segments.y));
  REQUIRE(whole.state.size() == segments.state.size());
  for (std::size_t i = 0; i < whole.state.size(); ++i)
    CHECK(same_bits(whole.state[i], segments.state[i]));
  for (std::size_t i = 0; i < whole.of_inputs.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(whole.of_inputs[i], segments.of_inputs[i]));
  }
  whole.of_params.each([&](const auto& entry, const Tensor& gradient) {
    CAPTURE(entry->name);
    CHECK(difference(gradient, segments.of_params[Param(entry)]) <= 1e-12);
  });
}

template <class L>
void check_segments(const L& layer, const Params& params) {
  for (const bool reverse : {false, true})
    for (const bool padded : {false, true})
      for (const bool given_state : {false, true}) {
        SequenceOptions options{.reverse = reverse};
        if (padded) options.lengths = lengths_of({7, 0, 2, 3, 6});
        const Run whole = run(layer, params, options, given_state);
        for (const Index segment : {1, 2, 3, 7, 100}) {
          CAPTURE(reverse);
          CAPTURE(padded);
          CAPTURE(given_state);
          CAPTURE(segment);
          options.segment = segment;
          check_same(whole, run(layer, params, options, given_state));
        }
      }
}

// A cell with a state of two parts that draws random numbers while training.
struct NoisyCell {
  using State = nn::LstmState;
  NoisyCell(const Params& p, Index input_size, Index hidden_size)
      : in(p / "in", input_size, hidden_size), back(p / "back", hidden_size, hidden_size) {}
  nn::Output<State> operator()(const Tensor& x, const State& state, const nn::Mode& mode) const {
    const Tensor start = zeros({x.size(0), output_size()}, x.dtype());
    const Tensor h = state.h.defined() ? state.h : start, c = state.c.defined() ? state.c : start;
    const Tensor kept = mode.training() ? dropout(h, 0.4, mode.rng()) : h;
    const Tensor next = reel::tanh(in(x) + back(kept));
    return {next + c, {next, 0.5 * c + next}};
  }
  Index output_size() const { return back.w.shape()[0]; }
  nn::Linear in, back;
};

template <class L>
L made(const Params& params) {
  return L(params, features, units);
}

}  // namespace

TEST_CASE_TEMPLATE("in segments: bit-identical y, states and their gradients", L, nn::Rnn, nn::Gru,
                   nn::Lstm, nn::Unroll<nn::LstmCell>, nn::Unroll<NoisyCell>) {
  const Params params(1, f64);
  check_segments(made<L>(params), params);
}

TEST_CASE("both kinds of GRU, and the RNN with relu") {
  const Params params(2, f64);
  check_segments(nn::Gru(params / "gru", features, units, {.reset = Reset::before}),
                 params / "gru");
  check_segments(nn::Rnn(params / "rnn", features, units, {.activation = Activation::relu}),
                 params / "rnn");
}

TEST_CASE("stacks and both directions pass the option on") {
  const Params params(3, f64);
  const nn::Stacked<nn::Bidirectional<nn::Lstm>> layer(params, features, units);
  for (const bool outputs : {true, false}) {
    SequenceOptions options{.lengths = lengths_of({7, 0, 2, 3, 6})};
    const Run plain = run(layer, params, options, true);
    options.segment = 3;
    if (outputs) {
      const Run segments = run(layer, params, options, true);
      CHECK(same_bits(plain.y, segments.y));
      for (std::size_t i = 0; i < plain.of_inputs.size(); ++i)
        CHECK(difference(plain.of_inputs[i], segments.of_inputs[i]) <= 1e-12);
      plain.of_params.each([&](const auto& entry, const Tensor& gradient) {
        CHECK(difference(gradient, segments.of_params[Param(entry)]) <= 1e-12);
      });
    } else {
      options.outputs = false;
      const Run segments = run(layer, params, options, true);
      CHECK_FALSE(segments.y.defined());
      for (std::size_t i = 0; i < plain.state.size(); ++i)
        CHECK(same_bits(plain.state[i], segments.state[i]));
    }
  }
}

TEST_CASE_TEMPLATE("the last state alone", L, nn::Rnn, nn::Gru, nn::Lstm, nn::Unroll<NoisyCell>) {
  const Params params(4, f64);
  const L layer = made<L>(params);
  const auto last_state = [&](const SequenceOptions& options) {
    Tape tape;
    const Tensor x = tape.watch(draw({steps, rows, features}, 5));
    const auto output = layer(x, {}, nn::Eval{}, options);
    CHECK(output.y.defined() == options.outputs);
    return std::pair(output.state.h.detach(), tape.gradient(sum(output.state.h), {x})[0]);
  };
  const auto [h, dx] = last_state({});
  const auto [segment_h, segment_dx] = last_state({.segment = 2, .outputs = false});
  CHECK(same_bits(h, segment_h));
  CHECK(same_bits(dx, segment_dx));
}

TEST_CASE("random draws of a cell are replayed in its segments") {
  const Params params(5, f64);
  const nn::Unroll<NoisyCell> layer(params, features, units);
  Rng plain(9), rng(9);
  const Run whole = run(layer, params, {}, true, nn::Train{plain});
  check_same(whole, run(layer, params, {.segment = 2}, true, nn::Train{rng}));
  CHECK(rng.state() == plain.state());
  CHECK_FALSE(same_bits(whole.y, run(layer, params, {.segment = 2}, true).y));
}

TEST_CASE_TEMPLATE("second order through segments", L, nn::Rnn, nn::Gru, nn::Lstm,
                   nn::Unroll<nn::GruCell>) {
  const Params params(6, f64);
  const L layer(params, 2, 2);
  const GradientReport report = check_gradients(
      [&](std::span<const Tensor> in) {
        const auto [y, state] = layer(in[0], {}, nn::Eval{}, {.segment = 2});
        return sum(square(y)) + sum(state.h);
      },
      params, {{"x", draw({5, 2, 2}, 9)}}, {.order = 2, .mode = GradcheckOptions::Mode::fast});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("without a tape, segments compute the same and hold one segment at a time") {
  const Params params(7);
  const nn::Lstm layer(params, 1, 32);
  const Tensor x = draw({400, 2, 1}, 10, f32);
  const auto bytes = [&](const SequenceOptions& options) {
    pool::trim();
    const Tensor h = layer(x, {}, nn::Eval{}, options).state.h;
    return std::pair(h, pool::statistics().cached_bytes);
  };
  const auto [whole_h, whole] = bytes({});
  const auto [segment_h, segments] = bytes({.segment = 20, .outputs = false});
  CHECK(same_bits(whole_h, segment_h));
  CHECK(segments * 8 < whole);
}

TEST_CASE("training in segments takes a fraction of the memory, also where x is recorded") {
  const Params params(8);
  const nn::Lstm layer(params, 2, 64);
  for (const bool watched : {false, true}) {
    const auto bytes = [&](const SequenceOptions& options) {
      const Tensor x = draw({900, 4, 2}, 11, f32);
      pool::trim();
      {
        Tape tape;
        const auto [y, state] = layer(watched ? tape.watch(x) : x, {}, nn::Eval{}, options);
        tape.gradient(sum(state.h), params);
      }
      return pool::statistics().cached_bytes;
    };
    CHECK(bytes({.segment = 30, .outputs = false}) * 6 < bytes({}));
  }
}

TEST_CASE("options that make no sense are refused where the layer is called") {
  const Params params(9);
  const nn::Lstm lstm(params / "lstm", 3, 4);
  const nn::Unroll<nn::GruCell> unrolled(params / "gru", 3, 4);
  const Tensor x = zeros({5, 2, 3});
  const auto contains = [](const std::string& text, const std::string& part) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  };
  const int line = __LINE__ + 1;
  const std::string negative = error_of<Error>([&] { lstm(x, {}, nn::Eval{}, {.segment = -1}); });
  contains(negative, "lstm: a segment of -1 steps");
  contains(negative, Site(__FILE__, line).str());
  contains(error_of<Error>([&] { lstm(x, {}, nn::Eval{}, {.outputs = false}); }),
           "lstm: all steps at once make all outputs; give a segment too");
  contains(error_of<Error>([&] { unrolled(x, {}, nn::Eval{}, {.outputs = false}); }),
           "Unroll: all steps");
  contains(error_of<Error>([&] {
             lstm(zeros({5, 2, 7}), {}, nn::Eval{}, {.segment = 2});
           }),
           "x has 7 features, but the layer takes 3");
  contains(error_of<Error>([&] {
             lstm(zeros({2, 3}), {}, nn::Eval{}, {.segment = 2});
           }),
           "x must be [T, B, D]");
  contains(error_of<Error>([&] {
             lstm(zeros({0, 2, 3}), {}, nn::Eval{}, {.segment = 2});
           }),
           "the sequence has no steps");
  contains(error_of<Error>([&] {
             lstm(x, {}, nn::Eval{}, {.lengths = lengths_of({5, 6}), .segment = 2});
           }),
           "between 0 and 5; one is 6 (" __FILE__);
  contains(error_of<Error>([&] {
             lstm(x, {}, nn::Eval{}, {.lengths = lengths_of({5, 5, 5}), .segment = 2});
           }),
           "lengths must be i32 [2], one for each row of x [5, 2, 3], and between 0 and 5; they "
           "are i32 [3] (");
  contains(
      error_of<Error>([&] { square(lstm(x, {}, nn::Eval{}, {.segment = 2, .outputs = false}).y); }),
      "x is undefined");
}
