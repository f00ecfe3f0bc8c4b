// What recurrent layers drop: that masks are what they are said to be, and the same however a batch
// is run.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/kernels/masks.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/params.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/ind_rnn.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/cells/slstm.h>
#include <reel/nn/embedding.h>
#include <reel/nn/generate/stepper.h>
#include <reel/nn/penalties.h>

#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

constexpr Index steps = 6, rows = 9, features = 3, units = 5;

const nn::CellDropout everything{.input = 0.2,
                                 .hidden = 0.3,
                                 .update = 0.25,
                                 .weights = 0.3,
                                 .zoneout_h = 0.2,
                                 .zoneout_c = 0.4};

Tensor input() { return Rng(1).normal({steps, rows, features}); }

// The share of `hit` among the numbers.
double share(const std::vector<double>& numbers, double hit) {
  return static_cast<double>(std::ranges::count(numbers, hit)) /
         static_cast<double>(numbers.size());
}

}  // namespace

TEST_CASE("masks have the rate that was asked for, and change with place, kind and direction") {
  kernels::StepOptions options{.zoneout_h = 0.3,
                               .zoneout_c = 0.1,
                               .update_dropout = 0.25,
                               .hidden_dropout = 0.5,
                               .training = true,
                               .rng = {1, 2, 3}};
  constexpr Index n = 20000;
  const auto draw = [&](kernels::Mask mask, Index t, Index row, std::size_t direction) {
    std::vector<double> numbers(n);
    kernels::Masks<double>(options, 4, n, direction).draw(mask, t, row, n, numbers.data());
    return numbers;
  };
  using enum kernels::Mask;
  const double close = 0.015;  // four standard deviations
  CHECK(std::abs(share(draw(zoneout_h, 0, 0, 0), 1) - 0.3) < close);
  CHECK(std::abs(share(draw(zoneout_c, 0, 0, 0), 1) - 0.1) < close);
  CHECK(std::abs(share(draw(update, 0, 0, 0), 0) - 0.25) < close);
  CHECK(share(draw(update, 0, 0, 0), 1 / 0.75) + share(draw(update, 0, 0, 0), 0) == 1);
  CHECK(std::abs(share(draw(hidden, 0, 0, 0), 0) - 0.5) < close);
  CHECK(draw(hidden, 0, 1, 0) == draw(hidden, 5, 1, 0));  // one for the sequence
  const auto first = draw(update, 2, 1, 0);
  CHECK(first == draw(update, 2, 1, 0));
  for (const auto& other : {draw(update, 3, 1, 0), draw(update, 2, 2, 0), draw(update, 2, 1, 1)})
    CHECK(first != other);
  options.training = false;
  CHECK(share(draw(zoneout_h, 0, 0, 0), 0.3) == 1);
}

TEST_CASE("dropout of updates leaves the old state where it drops") {
  const Params params(2);
  const nn::Lstm layer(params, features, units, {.dropout = {.update = 0.5}});
  Rng rng(3);
  const auto [y, state] = layer(slice(input(), 0, 0, 1), nn::Train{rng});
  // From a state of zeros c' = i ∘ g is exactly zero where g is dropped.
  CHECK(std::abs(share(state.c.to_vector(), 0) - 0.5) < 0.3);
  CHECK(share(state.c.to_vector(), 0) > 0);
}

TEST_CASE("zoneout keeps numbers of h and c in training, and mixes them otherwise") {
  const Params params(2);
  const nn::Lstm plain(params / "a", features, units);
  const nn::Lstm layer(params / "b", features, units,
                       {.dropout = {.zoneout_h = 0.3, .zoneout_c = 0.6}});
  Param copies[] = {layer.cell.w_ih, layer.cell.w_hh, layer.cell.b};
  copies[0].set(plain.cell.w_ih.value());
  copies[1].set(plain.cell.w_hh.value());
  copies[2].set(plain.cell.b.value());
  const Tensor x = slice(input(), 0, 0, 1);
  const nn::LstmState before{Rng(4).normal({rows, units}), Rng(5).normal({rows, units})};
  const auto after = plain(x, before).state;
  Rng rng(6);
  const auto drawn = layer(x, before, nn::Train{rng}).state;
  const auto check = [](const Tensor& old, const Tensor& fresh, const Tensor& result) {
    std::size_t kept = 0;
    for (Index i = 0; i < result.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double r = result.to_vector()[at];
      const bool is_old = r == old.to_vector()[at];
      kept += is_old;
      CHECK((is_old || r == fresh.to_vector()[at]));
    }
    return static_cast<double>(kept) / static_cast<double>(result.size());
  };
  CHECK(std::abs(check(before.h, after.h, drawn.h) - 0.3) < 0.25);
  CHECK(std::abs(check(before.c, after.c, drawn.c) - 0.6) < 0.25);
  const auto mixed = layer(x, before).state;
  const Tensor expected = 0.3 * before.h + 0.7 * after.h;
  for (Index i = 0; i < expected.size(); ++i)
    CHECK(mixed.h.to_vector()[std::size_t(i)] ==
          doctest::Approx(expected.to_vector()[std::size_t(i)]).epsilon(1e-6));
}

TEST_CASE("nothing but zoneout is left of dropout in Eval, also step by step") {
  const Params params(2);
  const nn::Lstm layer(params, features, units, {.dropout = everything});
  const Tensor x = input();
  const Tensor y = layer(x).y;
  const nn::Stepper step(layer);
  nn::LstmState state;
  for (Index t = 0; t < steps; ++t) {
    auto [out, next] = step(select(x, 0, t), state);
    CHECK(same_bits(out, select(y, 0, t)));
    state = next;
  }
  const Params same(2);
  const nn::Lstm without(same, features, units, {.dropout = {.zoneout_h = 0.2, .zoneout_c = 0.4}});
  CHECK(same_bits(without(x).y, y));
}

TEST_CASE("masks belong to rows: lengths of other rows, segments and threads change no bit") {
  const Params params(2);
  const nn::Lstm layer(params, features, units, {.dropout = everything});
  const Tensor x = input();
  const auto run = [&](const SequenceOptions& options) {
    Rng rng(7);
    return layer(x, nn::Train{rng}, options).y;
  };
  const Tensor y = run({});
  const std::vector<std::int32_t> counts{2, 6, 1, 6, 0, 6, 3, 6, 6};
  const Tensor packed = run({.lengths = tensor({rows}, counts)});
  for (Index row = 0; row < rows; ++row) {
    const Index length = counts[static_cast<std::size_t>(row)];
    const auto of = [&](const Tensor& all) {
      return slice(slice(all, 1, row, row + 1), 0, 0, length);
    };
    CHECK(same_bits(of(packed), of(y)));
  }
  CHECK(same_bits(run({.segment = 2}), y));
  for (const int threads : {2, 3, 8}) {
    const testing::ThreadsScope scope(threads);
    CHECK(same_bits(run({}), y));
  }
}

TEST_CASE("two directions in segments draw the masks of the whole sequence") {
  const Params params(2);
  nn::CellDropout dropout = everything;
  dropout.input = dropout.weights = 0;
  const nn::Bidirectional<nn::Gru> layer(
      params, features, units, nn::GruOptions{.dropout = {.hidden = 0.3, .zoneout_h = 0.4}});
  const auto run = [&](const SequenceOptions& options) {
    Rng rng(7);
    return layer(input(), nn::Train{rng}, options).y;
  };
  CHECK(same_bits(run({.segment = 4}), run({})));
}

TEST_CASE("the generator moves on: two calls drop differently, the same state the same") {
  const Params params(2);
  const nn::Gru layer(params, features, units, {.dropout = {.hidden = 0.5}});
  Rng rng(7);
  const Tensor first = layer(input(), nn::Train{rng}).y, second = layer(input(), nn::Train{rng}).y;
  CHECK_FALSE(same_bits(first, second));
  Rng again(7);
  CHECK(same_bits(layer(input(), nn::Train{again}).y, first));
}

TEST_CASE("an embedding drops whole symbols, at all their places") {
  const Params params(2);
  const nn::Embedding embed(params, 50, 4, nn::init::constant(1), 0.4);
  Rng rng(3);
  const Tensor symbols = tensor({6}, std::vector<std::int32_t>{1, 2, 3, 1, 2, 3});
  std::size_t dropped = 0;
  for (int run = 0; run < 50; ++run) {
    const auto vectors = embed(symbols, nn::Train{rng}).to_vector();
    for (std::size_t i = 0; i < 12; ++i) {
      CHECK(vectors[i] == vectors[i + 12]);
      CHECK(vectors[i] == vectors[i / 4 * 4]);
      CHECK((vectors[i] == 0 || vectors[i] == doctest::Approx(1 / 0.6)));
      dropped += vectors[i] == 0;
    }
  }
  CHECK(std::abs(static_cast<double>(dropped) / 600 - 0.4) < 0.15);
  CHECK(same_bits(embed(symbols, nn::Eval{}), embed(symbols)));
}

TEST_CASE("penalties are means over the steps that are there") {
  const Tensor y = Rng(1).normal({4, 3, 2}, 0, 1, f64);
  const auto at = [&](Index t, Index row, Index j) {
    return y.to_vector()[static_cast<std::size_t>((t * 3 + row) * 2 + j)];
  };
  const std::vector<std::int32_t> counts{2, 4, 1};
  double squares = 0, changes = 0;
  for (Index row = 0; row < 3; ++row)
    for (Index t = 0; t < counts[static_cast<std::size_t>(row)]; ++t)
      for (Index j = 0; j < 2; ++j) {
        squares += at(t, row, j) * at(t, row, j);
        if (t > 0) changes += std::pow(at(t, row, j) - at(t - 1, row, j), 2);
      }
  const Tensor lengths = tensor({3}, counts);
  CHECK(nn::activation_penalty(y, 3, lengths).item() == doctest::Approx(3 * squares / 14));
  CHECK(nn::temporal_penalty(y, 2, lengths).item() == doctest::Approx(2 * changes / 8));
  CHECK(nn::activation_penalty(y, 3).item() == doctest::Approx(3 * mean(square(y)).item()));
  CHECK(nn::temporal_penalty(slice(y, 0, 0, 1), 1).item() == 0);
  Tensor spoilt = y.copy();
  spoilt.edit<double>()[4] = std::numeric_limits<double>::quiet_NaN();  // row 2, step 0
  const Tensor none = tensor({3}, std::vector<std::int32_t>{2, 4, 0});
  CHECK(std::isfinite(nn::activation_penalty(spoilt, 1, none).item()));
  CHECK(std::isfinite(nn::temporal_penalty(spoilt, 1, none).item()));
  const auto loss = [&](std::span<const Tensor> in) {
    return nn::activation_penalty(in[0], 2, lengths) + nn::temporal_penalty(in[0], 1, lengths);
  };
  CHECK(check_gradients(loss, std::vector{y}, {.order = 2}).ok);
  CHECK(testing::error_of<ValueError>([&] {
          nn::activation_penalty(y, -1);
        }).starts_with("activation_penalty: the weight must be a finite number >= 0, not -1"));
  CHECK_THROWS_AS(nn::temporal_penalty(select(y, 0, 0), 1), ShapeError);
}

TEST_CASE("rates and options that do not go together are refused, by name and before any work") {
  const auto refused = [](auto make, const char* text) {
    const Params params(1);
    const std::string message = testing::error_of<ValueError>([&] { make(params / "rnn"); });
    CHECK_MESSAGE(message.find(text) == 0, message);
    CHECK(params.list().empty());
  };
  using P = const Params&;
  refused([](P p) { nn::Lstm(p, 2, 3, {.dropout = {.hidden = 1}}); },
          "LstmCell rnn: dropout.hidden must be in [0, 1), not 1");
  refused([](P p) { nn::Lstm(p, 2, 3, {.dropout = {.zoneout_c = -0.1}}); },
          "LstmCell rnn: dropout.zoneout_c must be in [0, 1), not -0.1");
  refused([](P p) { nn::Gru(p, 2, 3, {.dropout = {.zoneout_c = 0.1}}); },
          "GruCell rnn: dropout.zoneout_c is 0.1, but this cell has no cell state");
  refused([](P p) { nn::Rnn(p, 2, 3, {.dropout = {.update = 0.1}}); },
          "RnnCell rnn: dropout.update is 0.1, but this cell has no candidate");
  refused([](P p) { nn::IndRnn(p, 2, 3, {.dropout = {.weights = 0.1}}); },
          "IndRnnCell rnn: dropout.weights is 0.1, but this cell has no recurrent weights");
  refused([](P p) { nn::Slstm(p, 2, 3, {.dropout = {.zoneout_c = 0.1}}); },
          "SlstmCell rnn: dropout.zoneout_c is 0.1, but this cell has no cell state");
  refused([](P p) { nn::Lstm(p, 2, 3, {.projection_size = 3}); },
          "LstmCell rnn: projection_size must be between 1 and hidden_size - 1 = 2, not 3");
  refused([](P p) { nn::Lstm(p, 2, 3, {.projection_size = -1}); },
          "LstmCell rnn: projection_size must be between 1");
  refused([](P p) { nn::Lstm(p, 2, 3, {.cell_clip = 0}); },
          "LstmCell rnn: cell_clip must be positive, not 0");
  refused([](P p) { nn::Lstm(p, 2, 3, {.peepholes = true, .layer_norm = true}); },
          "LstmCell rnn: layer_norm is only for the standard variant");
  refused([](P p) { nn::Gru(p, 2, 3, {.reset = Reset::before, .layer_norm = true}); },
          "GruCell rnn: layer_norm normalises the product: it needs Reset::after");
  refused(
      [](P p) { nn::Rnn(p, 2, 3, {.weight_init = nn::init::constant(0), .identity_start = true}); },
      "RnnCell rnn: an identity start sets w_hh and b");
  refused([](P p) { nn::Embedding(p, 2, 3, {}, 1); }, "Embedding: ");
}
