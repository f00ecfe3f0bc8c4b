#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <vector>

#include <reel/autograd/gradients.h>
#include <reel/autograd/tape.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/embedding.h>
#include <reel/nn/files/safetensors.h>
#include <reel/nn/init.h>
#include <reel/nn/layer_norm.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>
#include <reel/nn/unroll.h>
#include <reel/optim/run_state.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;
using testing::error_of;
using testing::same_bits;

namespace {

// A cell that only applies dropout, so that every call shows the mode it ran in.
struct DropCell : nn::CellCalls<DropCell, nn::HiddenState> {
  using State = nn::HiddenState;
  DropCell(const Params&, Index, Index) {}
  using CellCalls::operator();
  nn::Output<State> operator()(const Tensor& x, const State& state, const nn::Mode& mode,
                               Site site = {}) const {
    const Tensor y = nn::Dropout(0.5)(x, mode, site);
    return {y, {state.h.defined() ? state.h + y : y}};
  }
  Index output_size() const { return 4; }
};

template <class L>
void check_short_calls(const L& layer, bool drops) {
  Rng draws(3);
  const Tensor x = draws.normal({3, 2, 4}), lengths = tensor({2}, {3, 1}, i32);
  const SequenceOptions shorter{.lengths = lengths};
  const typename L::State zero;
  const auto state = layer(x).state;
  const auto same = [](const auto& a, const auto& b) {
    const std::vector<Tensor> p = flatten(a.state), q = flatten(b.state);
    bool equal = same_bits(a.y, b.y) && p.size() == q.size();
    for (std::size_t i = 0; equal && i < p.size(); ++i) equal = same_bits(p[i], q[i]);
    return equal;
  };
  CHECK(same(layer(x, {}), layer(x, zero, nn::Eval{}, {})));
  CHECK(same(layer(x, {.lengths = lengths}), layer(x, zero, nn::Eval{}, shorter)));
  CHECK(same(layer(x, shorter), layer(x, zero, nn::Eval{}, shorter)));
  CHECK(same(layer(x, state, {.lengths = lengths}), layer(x, state, nn::Eval{}, shorter)));
  CHECK(same(layer(x, {}, {.lengths = lengths}), layer(x, zero, nn::Eval{}, shorter)));
  CHECK_FALSE(same(layer(x, {.lengths = lengths}), layer(x)));
  Rng one(5), two(5), three(5);
  const auto trained = layer(x, nn::Train{one});
  CHECK(same(trained, layer(x, zero, nn::Train{two}, {})));
  CHECK(same(layer(x, nn::Train{three}, {.lengths = lengths}),
             layer(x, zero, nn::Train{*std::make_unique<Rng>(5)}, shorter)));
  CHECK(same(trained, layer(x)) == !drops);
  CHECK((one.state().position > 0) == drops);
}

}  // namespace

TEST_CASE("state, mode and options of a layer may each be left out") {
  Params p(1);
  check_short_calls(nn::Rnn(p / "rnn", 4, 5), false);
  check_short_calls(nn::Gru(p / "gru", 4, 5), false);
  check_short_calls(nn::Lstm(p / "lstm", 4, 5), false);
  check_short_calls(nn::Unroll<nn::LstmCell>(p / "unroll", 4, 5), false);
  check_short_calls(nn::Unroll<DropCell>(p / "drop", 4, 4), true);
  check_short_calls(nn::Bidirectional<nn::Unroll<DropCell>>(p / "both", 4, 4), true);
  check_short_calls(nn::Stacked<nn::Gru>(p / "stack", 4, 5, {.dropout = 0.5}), true);
}

TEST_CASE("state and mode of a cell may each be left out") {
  Params p(1);
  Rng rng(5), same(5);
  const Tensor x = ones({2, 4});
  const DropCell cell(p, 4, 4);
  CHECK(same_bits(cell(x, nn::Eval{}).y, x));
  CHECK(same_bits(cell(x, nn::Train{rng}).y, cell(x, {}, nn::Train{same}).y));
  CHECK(rng.state().position > 0);
  const nn::GruCell gru(p / "gru", 4, 3);
  CHECK(same_bits(gru(x, nn::Train{rng}).y, gru(x).y));
}

TEST_CASE("constructors name the layer, its place in the store and the line") {
  Params p;
  const Params part = p / "encoder";
  const auto says = [](const std::string& text, auto make, Site site = {}) {
    CHECK(error_of<ValueError>(make) == fmt::format("{} ({})", text, site.place()));
  };
  const auto not_positive = [&](const char* what, auto make, Site site = {}) {
    says(fmt::format("{} must be positive, not 0", what), make, site);
  };
  // clang-format off
  not_positive("Lstm encoder: hidden_size", [&] { nn::Lstm(part, 2, 0); });
  not_positive("Gru: input_size", [&] { nn::Gru(p, 0, 2); });
  not_positive("RnnCell encoder: input_size", [&] { nn::RnnCell(part, 0, 2); });
  not_positive("Stacked encoder: layers", [&] { nn::Stacked<nn::Rnn>(part, 2, 2, {.layers = 0}); });
  not_positive("Stacked encoder: hidden_size", [&] { nn::Stacked<nn::Rnn>(part, 2, 0); });
  not_positive("Rnn encoder.forward: input_size", [&] { nn::Bidirectional<nn::Rnn>(part, 0, 2); });
  not_positive("GruCell encoder: hidden_size", [&] { nn::Unroll<nn::GruCell>(part, 2, 0); });
  not_positive("Linear encoder: output_size", [&] { nn::Linear(part, 2, 0); });
  not_positive("Embedding encoder: count", [&] { nn::Embedding(part, 0, 2); });
  not_positive("LayerNorm encoder: size", [&] { nn::LayerNorm(part, 0); });
  // Others make the call: the line that names the part is the user's.
  not_positive("Linear layer: input_size", [&] { return std::make_unique<nn::Linear>(p / "layer", 0, 2); });
  says("LayerNorm: epsilon must be positive and finite, not -1", [&] { nn::LayerNorm(p, 2, -1); });
  says("LstmCell: the forget bias must be finite, not inf", [&] { nn::Lstm(p, 2, 2, {.forget_bias = INFINITY}); });
  says("Dropout: the dropout rate must be in [0, 1), not 1", [] { nn::Dropout(1); });
  says("Dropout: the dropout rate must be in [0, 1), not 1", [&] { nn::Stacked<nn::Rnn>(p, 2, 2, {.dropout = 1}); });
  // clang-format on
  CHECK(p.list().empty());
}

TEST_CASE("an unrolled cell says what is wrong with its sequence") {
  Params p;
  const nn::Unroll<nn::RnnCell> rnn(p, 3, 4);
  CHECK_THROWS_WITH_AS(
      rnn(zeros({0, 2, 3})),
      Contains("Unroll: the sequence has no steps; x is f32 [0, 2, 3] (" __FILE__ ":"), ShapeError);
  CHECK_THROWS_WITH_AS(rnn(zeros({0, 2, 3}), {.segment = 2}),
                       Contains("Unroll: the sequence has no steps"), ShapeError);
  CHECK_THROWS_WITH_AS(rnn(zeros({2, 3})),
                       Contains("Unroll: x must be [T, B, D]; x is f32 [2, 3] ("), ShapeError);
}

TEST_CASE("errors of calls that are not ops name the line too") {
  const auto names_line = [](auto call) {
    CHECK(testing::error_of<Error>(call).find(" (" __FILE__ ":") != std::string::npos);
  };
  Params params;
  const Param w = params.create("w", {2}, nn::init::constant(1)),
              b = params.create("b", {2}, nn::init::constant(1));
  Tape tape;
  const Gradients gradients = tape.gradient(sum(w), params);
  names_line([&] { gradients[b]; });
  names_line([&] { gradients["b"]; });
  names_line([&] { params.create("matrix", {2}, nn::init::orthogonal()); });
  names_line([&] { params.create("matrix", {2}, nn::init::xavier_uniform()); });
  names_line([&] { nn::unflatten(nn::HiddenState{}, {}); });

  nn::NamedTensors tensors = nn::from_params(params);
  names_line([&] { tensors["missing"]; });
  names_line([&] { tensors.insert("", tensors); });
  tensors.tensors["undefined"] = Tensor();
  names_line([&] { nn::save_safetensors("never_written", tensors); });
  tensors.tensors = {{"run.w", ones({1})}};
  names_line([&] { optim::save_run_state("never_written", {.params = tensors}); });

  nn::Lstm lstm(params / "lstm", 2, 2);
  const Tape other;
  lstm(ones({1, 1, 2}));
  lstm.cell.b.set(zeros({8}));
  names_line([&] { lstm(ones({1, 1, 2})); });
}
