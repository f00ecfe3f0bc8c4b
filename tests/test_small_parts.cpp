// Small parts that other tests use without testing them.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>

#include <reel/autograd/engine/table.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/dropout.h>
#include <reel/nn/init.h>
#include <reel/nn/layer_norm.h>
#include <reel/nn/state.h>

#include "testing.h"

using namespace reel;
using Numbers = std::vector<double>;

TEST_CASE("a LayerNorm gives rows of mean 0 and deviation 1, times its gain, plus its bias") {
  const Params params(1, f64);
  nn::LayerNorm norm(params / "norm", 2, 1e-12);
  CHECK(norm.gain.name() == "norm.gain");
  CHECK(norm.gain.value().to_vector() == Numbers{1, 1});
  CHECK(norm.bias.value().to_vector() == Numbers{0, 0});
  norm.gain.set(tensor({2}, {2, 3}, f64));
  norm.bias.set(tensor({2}, {10, 20}, f64));
  const Numbers y = norm(tensor({2, 2}, {1, 3, 8, 4}, f64)).to_vector();
  const Numbers expected{8, 23, 12, 17};
  for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == doctest::Approx(expected[i]));
  CHECK_THROWS_AS(norm(zeros({2, 3}, f64)), ShapeError);
  CHECK_THROWS_AS(nn::LayerNorm(params / "none", 0), ValueError);
}

TEST_CASE("a Dropout drops only in training, and preserves the mean") {
  const nn::Dropout dropout(0.25);
  const Tensor x = ones({4000}, f64);
  CHECK(dropout(x, nn::Eval{}).to_vector() == x.to_vector());
  Rng rng(1);
  const Tensor y = dropout(x, nn::Train{rng});
  CHECK(rng.state().position > 0);
  for (const double v : y.to_vector()) CHECK((v == 0 || v == doctest::Approx(4.0 / 3)));
  CHECK(mean(y).item() == doctest::Approx(1).epsilon(0.05));
  CHECK_THROWS_AS(nn::Dropout(1), ValueError);
  CHECK_THROWS_AS(nn::Dropout(-0.1), ValueError);
}

TEST_CASE("a LayerNorm takes any leading axes, and is the op with its parameters") {
  const Params params(1, f64);
  nn::LayerNorm norm(params, 4, 1e-3);
  Rng rng(2);
  norm.gain.set(rng.normal({4}, 1, 1, f64));
  norm.bias.set(rng.normal({4}, 0, 1, f64));
  for (const Shape& shape : {Shape{4}, Shape{3, 4}, Shape{2, 3, 4}, Shape{0, 4}}) {
    const Tensor x = rng.normal(shape, 3, 2, f64);
    CHECK(testing::same_bits(norm(x), layer_norm(x, norm.gain, norm.bias, 1e-3)));
  }
  CHECK(testing::error_of<ShapeError>([&] {
          norm(zeros({4, 3}, f64), Site("a.cpp", 7));
        }) == "LayerNorm: x is f64 [4, 3], but its last axis must have 4 elements (a.cpp:7)");
  for (const double bad : {0.0, -1e-5, std::nan(""), static_cast<double>(INFINITY)})
    CHECK_THROWS_AS(nn::LayerNorm(params / "bad", 2, bad), ValueError);
}

TEST_CASE("a Dropout draws the same mask from the same place of a generator") {
  const nn::Dropout dropout(0.5);
  const Tensor x = ones({100}, f64);
  Rng a(1), b(1), other(2);
  const Tensor first = dropout(x, nn::Train{a});
  CHECK(testing::same_bits(first, dropout(x, nn::Train{b})));
  CHECK_FALSE(testing::same_bits(first, dropout(x, nn::Train{a})));  // which has moved on
  CHECK_FALSE(testing::same_bits(first, dropout(x, nn::Train{other})));
  // The gradient has the mask of the values.
  Tape tape;
  const Tensor w = tape.watch(x);
  Rng c(1);
  const Tensor y = dropout(w, nn::Train{c});
  CHECK(testing::same_bits(tape.gradient(sum(y), {w})[0], first));
}

TEST_CASE("a Dropout of rate 0 passes everything on and leaves the generator where it is") {
  const nn::Dropout dropout(0);
  Rng rng(1);
  const Tensor x = tensor({3}, {1, NAN, -INFINITY});
  CHECK(testing::same_bits(dropout(x, nn::Train{rng}), x));
  CHECK(testing::same_bits(dropout(x, nn::Eval{}), x));
  CHECK(rng.state().position == 0);
}

TEST_CASE("forget_bias sets the forget gate's block and nothing else") {
  constexpr Index hidden = 3;
  const auto bias = [](const Params& params, const nn::LstmOptions& options) {
    return nn::LstmCell(params, 2, hidden, options).b.value().to_vector();
  };
  for (const DType dtype : {f32, f64}) {
    const Numbers drawn = bias(Params(5, dtype), {.forget_bias = std::nullopt});
    const Numbers usual = bias(Params(5, dtype), {});
    const Numbers other = bias(Params(5, dtype), {.forget_bias = -2.5});
    const Numbers zero = bias(Params(5, dtype), {.forget_bias = 0});
    REQUIRE(drawn.size() == 4 * hidden);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const bool forget = i >= hidden && i < 2 * hidden;
      CAPTURE(i);
      CHECK(drawn[i] != 0);
      CHECK(std::abs(drawn[i]) < 2 / std::sqrt(3.0));  // the sum of two draws
      CHECK(usual[i] == (forget ? 1 : drawn[i]));
      CHECK(other[i] == (forget ? -2.5 : drawn[i]));
      CHECK(zero[i] == (forget ? 0 : drawn[i]));
    }
    const Params of_layer(5, dtype);
    CHECK(nn::Lstm(of_layer, 2, hidden).cell.b.value().to_vector() == usual);
  }
  const nn::LstmOptions constant{.bias_init = nn::init::constant(0.25)};
  const Numbers values = bias(Params(5), constant);
  CHECK(values[0] == 0.25);
  CHECK(values[hidden] == 1);
  CHECK(values[2 * hidden] == 0.25);
  for (const double bad : {std::nan(""), static_cast<double>(INFINITY)})
    CHECK_THROWS_AS(bias(Params(5), {.forget_bias = bad}), ValueError);
}

TEST_CASE("unflatten gives a state of as many tensors as it has") {
  const Tensor h = ones({1, 2}), c = zeros({1, 2});
  const nn::LstmState like{c, c};
  const auto state = nn::unflatten(like, std::vector{h, c});
  CHECK(state.h.to_vector() == h.to_vector());
  CHECK(state.c.to_vector() == c.to_vector());
  CHECK_THROWS_AS(nn::unflatten(like, std::vector{h}), ValueError);
  CHECK_THROWS_AS(nn::unflatten(like, std::vector{h, h, h}), ValueError);
}

TEST_CASE("a state that is undefined stands for zeros") {
  for (const Shape& shape : {Shape{2, 5}, Shape{4, 2, 5}}) {
    const Tensor state = nn::defined_state({}, zeros(shape, f64), 3);
    CHECK(state.shape() == Shape{2, 3});
    CHECK(state.dtype() == f64);
    CHECK(state.to_vector() == Numbers(6));
  }
  const Tensor given = ones({2, 3}, f64);
  CHECK(nn::defined_state(given, zeros({2, 5}, f64), 3).to_vector() == given.to_vector());
  CHECK_THROWS_AS(nn::defined_state(ones({2, 4}, f64), zeros({2, 5}, f64), 3), ShapeError);
}

TEST_CASE("lengths are those given, or none, and say which rows are active") {
  const Tensor x = zeros({4, 3, 2});
  CHECK_FALSE(resolve_lengths({}, x, "op").defined());
  CHECK_FALSE(active_rows({}, 1).defined());
  const Tensor lengths = tensor({3}, std::vector<std::int32_t>{4, 0, 2});
  CHECK(resolve_lengths({.lengths = lengths}, x, "op").to_vector() == Numbers{4, 0, 2});
  CHECK(testing::error_of<ValueError>([&] {
          resolve_lengths({.lengths = full({3}, 5, i32)}, x, "op");
        }).starts_with("op: "));
  CHECK(active_rows(lengths, 1).to_vector() == Numbers{1, 0, 1});
  CHECK(active_rows(lengths, 1).shape() == Shape{3, 1});
  CHECK(active_rows(lengths, 2).to_vector() == Numbers{1, 0, 0});
  CHECK_FALSE(active_rows(full({3}, 4, i32), 3).defined());
}

TEST_CASE("padding is filled with zeros, and a sequence without any is passed on") {
  const Tensor x = full({3, 2, 2}, NAN), lengths = tensor({2}, {3, 1}, i32);
  const Tensor y = with_zero_padding(ones({3, 2, 2}), lengths);
  CHECK(y.to_vector() == Numbers{1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0});
  CHECK(with_zero_padding(x, tensor({2}, {0, 0}, i32)).to_vector() == Numbers(12));
  const Tensor all = full({2}, 3, i32);
  CHECK(testing::same_bits(with_zero_padding(x, all), x));
  Tape tape;
  const Tensor w = tape.watch(ones({3, 2, 2}));
  const Tensor gradient = tape.gradient(sum(2 * with_zero_padding(w, lengths)), {w})[0];
  CHECK(gradient.to_vector() == Numbers{2, 2, 2, 2, 2, 2, 0, 0, 2, 2, 0, 0});
}

TEST_CASE("one step in ops is a sequence of one step") {
  Rng rng(3);
  const auto draw = [&](const Shape& shape) { return rng.normal(shape, 0, 1, f64); };
  const Tensor x = draw({2, 3}), h = draw({2, 4}), c = draw({2, 4}), b_hn = draw({4});
  const Tensor sequence = expand(x, 0);
  const auto check = [&](Index gates, auto step, auto layer) {
    const Tensor w_ih = draw({gates * 4, 3}), w_hh = draw({gates * 4, 4}), b = draw({gates * 4});
    const Numbers one = step(affine(x, w_ih, b), w_hh).to_vector();
    const Numbers all = layer(w_ih, w_hh, b).to_vector();
    REQUIRE(one.size() == all.size());
    for (std::size_t i = 0; i < one.size(); ++i)
      CHECK(one[i] == doctest::Approx(all[i]).epsilon(1e-13));
  };
  for (const Activation f : {Activation::tanh, Activation::relu})
    check(
        1, [&](const Tensor& p, const Tensor& w_hh) { return rnn_step(p, h, w_hh, f); },
        [&](const Tensor& w_ih, const Tensor& w_hh, const Tensor& b) {
          return rnn(sequence, w_ih, w_hh, b, h, f).h;
        });
  for (const Reset reset : {Reset::after, Reset::before})
    check(
        3, [&](const Tensor& p, const Tensor& w_hh) { return gru_step(p, h, w_hh, b_hn, reset); },
        [&](const Tensor& w_ih, const Tensor& w_hh, const Tensor& b) {
          return gru(sequence, w_ih, w_hh, b, b_hn, h, reset).h;
        });
  check(
      4,
      [&](const Tensor& p, const Tensor& w_hh) {
        const LstmStep next = lstm_step(p, h, c, w_hh);
        return concat({next.h, next.c}, 0);
      },
      [&](const Tensor& w_ih, const Tensor& w_hh, const Tensor& b) {
        const LstmResult result = lstm(sequence, w_ih, w_hh, b, h, c);
        return concat({result.h, result.c}, 0);
      });
}

TEST_CASE("a tape holds an object as long as its records") {
  auto object = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = object;
  {
    Tape tape;
    tape.hold(std::move(object));
    CHECK_FALSE(watched.expired());
  }
  CHECK(watched.expired());

  // A gradient that keeps the tape keeps it too; one that uses it up, or clear(), lets it go.
  for (const bool cleared : {false, true}) {
    auto held = std::make_shared<int>(1);
    const std::weak_ptr<int> seen = held;
    Tape tape;
    const Tensor x = tape.watch(ones({2}));
    const Tensor y = sum(x * x);
    tape.hold(std::move(held));
    tape.gradient(y, {x}, {.keep = true});
    CHECK_FALSE(seen.expired());
    if (cleared)
      tape.clear();
    else
      tape.gradient(y, {x});
    CHECK(seen.expired());
  }
}

TEST_CASE("a table has columns as wide as their longest cells") {
  Table table({"name", "n"});
  table.add({"a", "1000"});
  table.add({"longer", "7"});
  const std::string text = table.str();
  CHECK(text.find("name") < text.find("longer"));
  CHECK(text.find("a       1000\n") != std::string::npos);
  CHECK(text.find("longer     7\n") != std::string::npos);
}
