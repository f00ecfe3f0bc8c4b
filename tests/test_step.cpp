// Steppers: the values of the layers over a sequence, a step at a time.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include "testing.h"

using namespace reel;
using testing::error_of;
using testing::same_bits;

namespace {

template <class State>
void check_same_state(const State& a, const State& b) {
  const std::vector<Tensor> x = nn::flatten(a), y = nn::flatten(b);
  REQUIRE(x.size() == y.size());
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(same_bits(x[i], y[i]));
}

// Steps over x [T, B, ..] against the layer over the whole sequence.
template <class L, class State>
void check_steps(const nn::Stepper<L>& step, const Tensor& x, const State& initial,
                 const nn::Output<State>& whole) {
  State state = initial;
  for (Index t = 0; t < x.size(0); ++t) {
    CAPTURE(t);
    auto [y, next] = step(select(x, 0, t), state);
    CHECK(same_bits(y, select(whole.y, 0, t)));
    state = std::move(next);
  }
  check_same_state(state, whole.state);
}

Tensor draw_symbols(const Shape& shape, Index count) {
  std::vector<std::int32_t> symbols;
  Rng rng(4);
  for (Index i = 0; i < shape.size(); ++i)
    symbols.push_back(static_cast<std::int32_t>(rng.integer(count)));
  return tensor(shape, std::span<const std::int32_t>(symbols));
}

struct Sizes {
  Index features, units;
};
// Loop tails of every width, several panels, and sums of more than one block.
constexpr Sizes sizes[] = {{1, 1}, {3, 5}, {20, 19}, {64, 40}, {300, 24}, {24, 270}};

template <class L, class... Options>
void check_layer(const Options&... options) {
  for (const DType dtype : {f32, f64})
    for (const Sizes& size : sizes) {
      const Index features = size.features, units = size.units;
      const Params params(1, dtype);
      const L layer(params / "layer", features, units, options...);
      for (Param p : params.list())  // initial states and biases of norms are zeros
        p.set(p.value() + Rng(9).normal(p.shape(), 0, 0.1, dtype));
      const nn::Stepper step(layer);
      for (const Index rows : {1, 2, 3}) {
        CAPTURE(name_of(dtype));
        CAPTURE(features);
        CAPTURE(units);
        CAPTURE(rows);
        const Tensor x = Rng(2).normal({4, rows, features}, 0, 1, dtype);
        const auto whole = layer(x);
        check_steps(step, x, typename L::State{}, whole);
        check_steps(step, x, whole.state, layer(x, whole.state));
      }
      // Few symbols use a lookup table of precomputed rows, many do not.
      for (const Index symbols : {7, 1500}) {
        CAPTURE(symbols);
        const nn::Embedding embed(params / std::to_string(symbols), symbols, features);
        const nn::Stepper read(embed, layer);
        const Tensor tokens = draw_symbols({4, 3}, symbols);
        check_steps(read, tokens, typename L::State{}, layer(embed(tokens)));
      }
    }
}

// A user's cell in ops.
struct LeakyCell {
  using State = nn::HiddenState;
  LeakyCell(const Params& p, Index input_size, Index hidden_size)
      : in(p / "in", input_size, hidden_size), back(p / "back", hidden_size, hidden_size) {}
  nn::Output<State> operator()(const Tensor& x, const State& state, const nn::Mode&) const {
    const Tensor h = state.h.defined() ? state.h : zeros({x.size(0), output_size()}, x.dtype());
    const Tensor next = 0.6 * h + 0.4 * tanh(in(x) + back(h));
    return {next, {next}};
  }
  Index output_size() const { return back.w.shape()[0]; }
  nn::Linear in, back;
};
using Leaky = nn::Unroll<LeakyCell>;

void check_contains(const std::string& text, const std::string& part) {
  CHECK_MESSAGE(text.find(part) != std::string::npos, text);
}

}  // namespace

TEST_CASE("a stepper gives the bits of its layer over the sequence") {
  check_layer<nn::Rnn>();
  check_layer<nn::Rnn>(nn::RnnOptions{.activation = Activation::relu});
  check_layer<nn::Gru>();
  check_layer<nn::Gru>(nn::GruOptions{.reset = Reset::before});
  check_layer<nn::Lstm>();
}

TEST_CASE("a stack's stepper gives the bits of the stack") {
  check_layer<nn::Stacked<nn::Rnn>>();
  check_layer<nn::Stacked<nn::Gru>>(nn::StackOptions{.layers = 3, .dropout = 0.5},
                                    nn::GruOptions{.reset = Reset::before});
  check_layer<nn::Stacked<nn::Lstm>>(nn::StackOptions{.layers = 3});
}

TEST_CASE("steppers of stacks with connections, norms, several types and initial states") {
  using nn::Connection;
  using nn::StackOptions;
  check_layer<Leaky>();
  check_layer<nn::Unroll<nn::LstmCell>>();
  check_layer<nn::Stacked<nn::Lstm>>(
      StackOptions{.connection = Connection::highway, .layer_norm = true});
  check_layer<nn::Stacked<nn::Gru, Leaky, nn::Rnn>>(
      StackOptions{.dropout = 0.5, .connection = Connection::residual});
  check_layer<nn::WithInitialState<nn::Lstm>>();
  check_layer<nn::WithInitialState<nn::Stacked<nn::Rnn>>>();
  check_layer<nn::Stacked<nn::Stacked<nn::Gru>, nn::WithInitialState<Leaky>>>();
}

TEST_CASE("a stepper of a stack notes changes of what lies between the layers") {
  const Params params(1);
  const nn::WithInitialState<nn::Stacked<nn::Gru>> gru(
      params, 3, 4, nn::StackOptions{.connection = nn::Connection::highway, .layer_norm = true});
  for (const char* name :
       {"norm0.gain", "norm0.bias", "highway1.w", "highway1.b", "initial.layers.1.h", "1.w_hh"}) {
    const nn::Stepper step(gru);
    CHECK_NOTHROW(step(ones({1, 3})));
    Param p = params[name];
    p.set(p.value() + 1);
    check_contains(error_of<StaleTensorError>([&] {
                     step(ones({1, 3}));
                   }),
                   std::string("Stepper: parameter ") + name + " has changed");
  }
}

TEST_CASE("a stepper of a cell in ops records nothing either") {
  const Params params(1);
  const Leaky leaky(params / "leaky", 3, 4);
  const nn::WithInitialState<Leaky> started(params / "started", 3, 4);
  const nn::Stepper step(leaky);
  const nn::Stepper from_start(started);
  const Tensor x = ones({1, 3});
  Tape tape;
  check_contains(error_of<GradientError>([&] { step(x); }), "a tape is current");
  check_contains(error_of<GradientError>([&] { from_start(x); }), "a tape is current");
  tape.gradient(sum(leaky(ones({2, 1, 3})).y), params);
  const std::size_t records = tape.size();
  step(x);
  from_start(x);
  CHECK(tape.size() == records);
}

TEST_CASE("a linear layer's stepper gives its bits") {
  for (const DType dtype : {f32, f64})
    for (const bool bias : {true, false})
      for (const Sizes& size : sizes) {
        const Index features = size.features, units = size.units;
        const Params params(1, dtype);
        const nn::Linear linear(params, features, units, {.bias = bias});
        const nn::Stepper step(linear);
        for (const Shape& shape :
             {Shape{features}, {1, features}, {3, features}, {2, 2, features}, {0, features}}) {
          CAPTURE(shape.str());
          const Tensor x = Rng(2).normal(shape, 0, 1, dtype);
          if (shape.rank() == 1)
            CHECK(same_bits(step(x), reshape(linear(reshape(x, {1, features})), {units})));
          else
            CHECK(same_bits(step(x), linear(x)));
        }
      }
}

TEST_CASE("a stepper refuses parameters that changed after it was made") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 5, 3);
  const nn::Stacked<nn::Gru> gru(params / "gru", 3, 4);
  const nn::Linear head(params / "head", 4, 5);
  const Tensor token = tensor({1}, {2}, i32), h = ones({1, 4});
  for (Param p : params.list()) {
    CAPTURE(p.name());
    const nn::Stepper step(embed, gru);
    const nn::Stepper predict(head);
    CHECK_NOTHROW(step(token));
    CHECK_NOTHROW(predict(h));
    p.edit<float>()[0] += 1;
    const std::string message = error_of<StaleTensorError>([&] {
      step(token);
      predict(h);
    });
    check_contains(message, "Stepper: parameter " + p.name() + " has changed since it was packed");
    check_contains(message, "test_step.cpp");
    CHECK(same_bits(nn::Stepper(embed, gru)(token).y,
                    select(gru(embed(reshape(token, {1, 1}))).y, 0, 0)));
    p.set(p.value());
    const nn::Stepper after_set(embed, gru);
    p.set(p.value());
    if (!p.name().starts_with("head")) CHECK_THROWS_AS(after_set(token), StaleTensorError);
  }
}

TEST_CASE("steps are not recorded, and say so") {
  const Params params(1);
  const nn::Lstm lstm(params, 3, 4);
  const nn::Stepper step(lstm);
  const Tensor x = ones({1, 3});
  Tape tape;
  check_contains(error_of<GradientError>([&] { step(x); }), "a tape is current");
  const NoRecord pause;
  CHECK(same_bits(step(x).y, select(lstm(ones({1, 1, 3})).y, 0, 0)));
}

TEST_CASE("arguments that do not fit a stepper are reported before any work") {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 5, 3);
  const nn::Lstm lstm(params / "lstm", 3, 4);
  const nn::Stacked<nn::Lstm> stack(params / "stack", 3, 4);
  const nn::Linear head(params / "head", 4, 5);
  const nn::Stepper step(lstm), read(embed, lstm);
  const nn::Stepper stacked(stack);
  const nn::Stepper predict(head);
  const auto shape = [](auto f) { return error_of<ShapeError>(f); };
  const auto dtype = [](auto f) { return error_of<DTypeError>(f); };
  const auto value = [](auto f) { return error_of<ValueError>(f); };
  check_contains(shape([&] {
                   step(ones({2, 4}));
                 }),
                 "Stepper: x must be f32 [2, 3], not f32 [2, 4] (");
  check_contains(shape([&] { step(ones({4, 2, 3})); }), "must be f32 [4, 3], not f32 [4, 2, 3]");
  check_contains(dtype([&] { step(ones({1, 3}, f64)); }), "must be f32 [1, 3], not f64 [1, 3]");
  check_contains(value([&] { step(Tensor()); }), "x is undefined");
  check_contains(shape([&] {
                   step(ones({2, 3}), {ones({1, 4}), ones({2, 4})});
                 }),
                 "the state must be f32 [2, 4], not f32 [1, 4]");
  check_contains(shape([&] { read(full({1, 1}, 2, i32)); }), "must be i32 [1], not i32 [1, 1]");
  check_contains(dtype([&] { read(ones({1})); }), "must be i32 [1], not f32 [1]");
  check_contains(value([&] { read(full({1}, 5, i32)); }),
                 "symbol 5 at position 0 is not among the 5 symbols (0 to 4) (");
  nn::StackedState<nn::LstmState> one;
  one.layers.resize(1);
  check_contains(shape([&] { stacked(ones({2, 3}), one); }), "the state has 1 layers, the stack 2");
  check_contains(shape([&] { predict(ones({1, 3})); }), "must be f32 [1, 4], not f32 [1, 3]");
  check_contains(shape([&] { predict(scalar(1)); }), "must be f32 [4], not f32 []");
  check_contains(shape([&] { nn::Stepper(nn::Embedding(params / "wide", 5, 7), lstm); }),
                 "the embedding gives 7 features, the layer takes 3");
  check_contains(dtype([&] { nn::Stepper(nn::Embedding(Params(1, f64), 5, 3), lstm); }),
                 "the embedding is f64, the layer f32");
}

TEST_CASE("copies of a stepper outlive it") {
  const Params params(1);
  const nn::Gru gru(params, 3, 4);
  std::optional<nn::Stepper<nn::Gru>> original(gru);
  const nn::Stepper copy = *original;
  original.reset();
  CHECK(same_bits(copy(ones({1, 3})).y, select(gru(ones({1, 1, 3})).y, 0, 0)));
}
