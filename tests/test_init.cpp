#include <doctest/doctest.h>

#include <reel/autograd/ops.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/initialize.h>
#include <reel/nn/layer_norm.h>
#include <reel/nn/linear.h>

#include <cmath>
#include <set>

#include "testing.h"

using namespace reel;
using namespace reel::nn;
using reel::testing::message_without_line;

namespace {

struct Moments {
  double mean, deviation, largest;
};

Moments moments(const Tensor& x) {
  return {mean(x).item(), reel::std(x).item(), max(abs(x)).item()};
}

Tensor drawn(const Initializer& init, const Shape& shape) {
  Rng rng(5);
  return init(rng, shape, f64);
}

}  // namespace

TEST_CASE("init: Kaiming's values have the variance gain² / fan") {
  const Shape shape{400, 100};  // [outputs, inputs]
  const auto check = [&](const init::KaimingOptions& options, double deviation) {
    const Moments uniform = moments(drawn(init::kaiming_uniform(options), shape));
    CHECK(std::abs(uniform.mean) < 0.02 * deviation);
    CHECK(uniform.deviation == doctest::Approx(deviation).epsilon(0.01));
    CHECK(uniform.largest == doctest::Approx(std::sqrt(3.0) * deviation).epsilon(0.001));
    const Moments normal = moments(drawn(init::kaiming_normal(options), shape));
    CHECK(std::abs(normal.mean) < 0.02 * deviation);
    CHECK(normal.deviation == doctest::Approx(deviation).epsilon(0.015));
    CHECK(normal.largest > 3.5 * deviation);
  };
  check({}, std::sqrt(2.0 / 100));
  check({.fan = init::Fan::out}, std::sqrt(2.0 / 400));
  check({.gain = init::tanh_gain}, 5.0 / 3 / 10);
  check({.gain = init::leaky_relu_gain(0.5)}, std::sqrt(2 / 1.25 / 100));
}

TEST_CASE("init: relu layers with Kaiming's values keep the mean square of their inputs") {
  Tensor x = relu(Rng(1).normal({300, 200}, 0, std::sqrt(2.0), f64));
  const double before = mean(square(x)).item();
  for (std::uint64_t layer = 0; layer < 10; ++layer) {
    Rng rng(layer);
    x = relu(matmul(x, init::kaiming_normal()(rng, {200, 200}, f64), false, true));
  }
  CHECK(mean(square(x)).item() > before / 3);  // with gain 1 it would be before / 1024
  CHECK(mean(square(x)).item() < before * 3);
}

TEST_CASE("init: sparse weights have that many inputs for each unit, drawn from all") {
  const Index units = 300, inputs = 40, connections = 5;
  const Tensor w = drawn(init::sparse(connections, 0.5), {units, inputs});
  std::vector<Index> uses(inputs, 0);
  double squares = 0;
  for (Index unit = 0; unit < units; ++unit) {
    Index count = 0;
    for (Index i = 0; i < inputs; ++i) {
      const double value = w.begin<double>()[unit * inputs + i];
      squares += value * value;
      count += value != 0;
      uses[static_cast<std::size_t>(i)] += value != 0;
    }
    CHECK(count == connections);
  }
  CHECK(squares / (units * connections) == doctest::Approx(0.25).epsilon(0.1));
  for (const Index used : uses) {  // 37.5 expected, with a deviation of 5.7
    CHECK(used > 15);
    CHECK(used < 65);
  }
  const Tensor dense = drawn(init::sparse(inputs), {3, inputs});
  CHECK(sum(equal(dense, 0)).item() == 0);
}

TEST_CASE("init: the identity can be scaled") {
  const Tensor w = drawn(init::identity(0.5), {4, 2});
  CHECK(w.to_vector() == std::vector<double>{0.5, 0, 0, 0.5, 0.5, 0, 0, 0.5});
  CHECK(drawn(init::identity(), {1, 1}).to_vector() == std::vector<double>{1});
}

TEST_CASE("init: per_gate gives each block an initializer of its own") {
  const Initializer gates = init::per_gate(
      {init::constant(1), init::identity(3), init::orthogonal(), init::uniform(0.1)});
  const Tensor w = drawn(gates, {12, 3});
  const Tensors blocks = split(w, 4, 0);
  CHECK(blocks[0].to_vector() == std::vector<double>(9, 1));
  CHECK(blocks[1].to_vector() == std::vector<double>{3, 0, 0, 0, 3, 0, 0, 0, 3});
  CHECK(max(abs(matmul(blocks[2], blocks[2], true) - eye(3, f64))).item() < 1e-14);
  CHECK(moments(blocks[3]).largest < 0.1);
  // A block is a matrix of its own: its fan is that of one gate, not of four.
  const Initializer one = init::kaiming_uniform({.fan = init::Fan::out});
  const Tensor four = drawn(init::per_gate({one, one, one, one}), {400, 50});
  CHECK(moments(four).largest == doctest::Approx(std::sqrt(6.0 / 100)).epsilon(0.001));

  const Params params(1);
  const Initializer biases =
      init::per_gate({init::constant(0), init::constant(2), init::constant(0), init::constant(-1)});
  const Lstm lstm(params, 2, 3, {.forget_bias = {}, .bias_init = biases});
  CHECK(lstm.cell.b.value().to_vector() ==
        std::vector<double>{0, 0, 0, 2, 2, 2, 0, 0, 0, -1, -1, -1});
}

TEST_CASE("init: settings and shapes that do not fit are named") {
  CHECK(message_without_line<ValueError>([] { init::kaiming_normal({.gain = -1}); }) ==
        "init::kaiming_normal: gain is -1, but has to be a finite number >= 0");
  CHECK(message_without_line<ShapeError>([] { drawn(init::kaiming_uniform(), {3}); }) ==
        "init::kaiming_uniform: the parameter must be a matrix, not [3]");
  CHECK(message_without_line<ValueError>([] { init::sparse(0); }) ==
        "init::sparse: the number of connections must be positive, not 0");
  CHECK(message_without_line<ShapeError>([] {
          drawn(init::sparse(), {3, 14});
        }) == "init::sparse: the units of [3, 14] have fewer than 15 inputs");
  CHECK(message_without_line<ValueError>([] { init::identity(1 / 0.0); }) ==
        "init::identity: scale is inf, but has to be finite");
  CHECK(message_without_line<ValueError>([] { init::per_gate({}); }) ==
        "init::per_gate: there is no initializer");
  CHECK(message_without_line<ValueError>([] {
          init::per_gate({init::uniform(1), {}});
        }) == "init::per_gate: initializer 1 is empty");
  CHECK(message_without_line<ShapeError>([] {
          drawn(init::per_gate({init::uniform(1), init::uniform(1)}), {3, 2});
        }) == "init::per_gate: [3, 2] is not made of 2 blocks of rows");
}

namespace {

struct Model {
  explicit Model(const Params& p)
      : lstm(p / "lstm", 3, 20), norm(p / "norm", 20), head(p / "head", 20, 2) {}
  Lstm lstm;
  LayerNorm norm;
  Linear head;
};

}  // namespace

TEST_CASE("initialize: a star is everything, biases and gains too") {
  const Params params(1);
  const Model model(params);
  initialize(params, {{"*", init::uniform(0.1)}});
  for (const Param& param : params.list()) {
    CAPTURE(param.name());
    const Moments found = moments(param.value());
    CHECK(found.largest <= 0.1);
    CHECK(found.largest > 0.05);  // and nothing is what it was: a forget bias or a gain of 1, or 0
    CHECK(sum(equal(param.value(), 0)).item() == 0);
  }
}

TEST_CASE("initialize: the first entry that selects a parameter counts") {
  const Params params(1);
  const Model model(params);
  const std::vector<double> norm = model.norm.gain.value().to_vector();
  initialize(params, {{"*.b", init::constant(0)},
                      {"lstm.w_hh", init::orthogonal()},
                      {matrices_only, init::constant(2)}});
  CHECK(moments(model.lstm.cell.b.value()).largest == 0);
  CHECK(moments(model.head.b.value()).largest == 0);
  CHECK(moments(model.lstm.cell.w_hh.value()).largest <= 1);
  CHECK(model.lstm.cell.w_ih.value().to_vector() == std::vector<double>(4 * 20 * 3, 2));
  CHECK(model.head.w.value().to_vector() == std::vector<double>(40, 2));
  CHECK(model.norm.gain.value().to_vector() == norm);  // selected by none
}

TEST_CASE("initialize: values are those of a creation with the initializer") {
  const Params params(7), others(7);
  const Model model(params);
  initialize(params, {{"head.w", init::normal(2)}, {"*", init::uniform(0.1)}});
  const Linear head(others / "head", 20, 2,
                    {.weight_init = init::normal(2), .bias_init = init::uniform(0.1)});
  CHECK(model.head.w.value().to_vector() == head.w.value().to_vector());
  CHECK(model.head.b.value().to_vector() == head.b.value().to_vector());

  const Params seeded(8);
  const Model again(seeded);
  initialize(seeded, {{"head.w", init::normal(2)}, {"*", init::uniform(0.1)}}, Rng(7));
  CHECK(again.head.w.value().to_vector() == head.w.value().to_vector());
  CHECK(again.lstm.cell.w_hh.value().to_vector() == model.lstm.cell.w_hh.value().to_vector());

  // A part of a store: names are those of the whole.
  initialize(seeded / "head", {{"head.*", init::constant(3)}});
  CHECK(again.head.b.value().to_vector() == std::vector<double>(2, 3));
  CHECK(again.lstm.cell.w_hh.value().to_vector() == model.lstm.cell.w_hh.value().to_vector());
}

TEST_CASE("initialize: what is wrong is named, and nothing has changed") {
  const Params params(1);
  const Model model(params);
  const std::vector<double> before = model.head.w.value().to_vector();
  const auto message = [&](const std::vector<InitialValues>& scheme) {
    const std::string text = message_without_line<ValueError>([&] { initialize(params, scheme); });
    CHECK(model.head.w.value().to_vector() == before);
    return text;
  };
  CHECK(message({}) == "initialize: the scheme is empty");
  CHECK(message({{"*", {}}}) == "initialize: entry 0 of the scheme has an empty initializer");
  CHECK(message({{"*", init::constant(0)}, {"head.w", init::uniform(1)}}) ==
        "initialize: entry 1 of the scheme has no effect: the entries before it select all of its "
        "parameters; put it before them");
  CHECK(message({{"*.w", init::constant(0)}, {"lstm.whh", init::uniform(1)}})
            .starts_with("initialize: entry 1 of the scheme: no parameter has a name like "
                         "\"lstm.whh\""));
  CHECK(message_without_line<ShapeError>([&] {
          initialize(params, {{"head.w", init::constant(0)}, {"*", init::orthogonal()}});
        }) ==
        "initialize: parameter lstm.b: init::orthogonal: the parameter must be a matrix, not "
        "[80]");
  CHECK(message_without_line<ShapeError>([&] {
          initialize(params, {{"head.w", [](Rng&, const Shape&, DType) { return zeros({2}); }}});
        }) ==
        "initialize: parameter head.w: it is f32 [2, 20], but its initial values are f32 [2]");
  CHECK(model.head.w.value().to_vector() == before);
}

TEST_CASE("initialize: a scheme as papers state it") {
  const Params params(1);
  const Model model(params);
  // [initialize]
  nn::initialize(params, {{"*.gain", nn::init::constant(1)},
                          {"lstm.w_hh", nn::init::orthogonal()},
                          {"*", nn::init::uniform(0.1)}});
  // [/initialize]
  CHECK(model.norm.gain.value().to_vector() == std::vector<double>(20, 1));
  CHECK(moments(model.norm.bias.value()).largest < 0.1);
  CHECK(moments(model.lstm.cell.b.value()).largest < 0.1);
  const Tensor& w = model.lstm.cell.w_hh.value();
  CHECK(max(abs(matmul(w, w, true) - 4 * eye(20))).item() < 1e-5);
}
