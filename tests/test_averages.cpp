// Averages of weights, and models called on other values than their parameters'.
#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/checkpoint.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/functional_call.h>
#include <reel/nn/generate/stepper.h>
#include <reel/nn/linear.h>
#include <reel/optim/average.h>

#include <cmath>
#include <thread>

#include "optimizers.h"

using namespace reel;
using namespace reel::testing;

namespace {

// Sets both numbers of a parameter p.
void set(Param p, double value) { p.set(full(p.shape(), value, p.dtype())); }

struct Net {
  Params params;
  nn::Gru rnn{params / "rnn", 2, 3};
  nn::Linear head{params / "head", 3, 1};

  explicit Net(std::uint64_t seed) : params(seed, f64) {}
  Tensor loss(const Tensor& x, const SequenceOptions& options = {}) const {
    return mean(square(head(rnn(x, {}, nn::Eval{}, options).y)));
  }
};

Tensor sequence(std::uint64_t seed) { return Rng(seed).normal({6, 2, 2}, 0, 1, f64); }

}  // namespace

TEST_CASE("an exponential moving average begins with the first values") {
  const Params params(0, f32);
  const Param p = create(params, "p", {1, 1});
  Ema ema(params, 0.75);
  CHECK_THROWS_WITH_AS(
      ema.values(),
      doctest::Contains("ema: there is no average yet; call update() after a step first"),
      ValueError);
  double expected = 8;
  for (const double value : {8.0, 4.0, 1.0, -3.0}) {
    set(p, value);
    ema.update();
    if (ema.count() > 1) expected = 0.75 * expected + 0.25 * value;
    CHECK(ema.values()["p"].at({0}) == expected);
  }
  CHECK(ema.values()["p"].dtype() == f32);
  CHECK(p.value().at({0}) == -3);
  CHECK_THROWS_AS(Ema(params, 1), ValueError);
  CHECK_THROWS_AS(Ema(Params{}, 0.5), ValueError);
}

TEST_CASE("the mean of all updates, also where an f32 would no longer change") {
  const Params params(0, f32);
  const Param p = create(params, "p", {1, 1});
  Swa swa(params);
  for (int i = 1; i <= 3; ++i) {
    set(p, i);
    swa.update();
  }
  CHECK(swa.values()["p"].at({0}) == 2);
  // A weight that moves by less than the rounding of its mean, again and again.
  Ema ema(params, 0.99999);
  set(p, 1);
  ema.update();
  set(p, 1.005);
  for (int i = 0; i < 100'000; ++i) ema.update();
  CHECK(ema.values()["p"].at({0}) == doctest::Approx(1 + 0.005 * (1 - std::exp(-1))).epsilon(1e-6));
}

TEST_CASE("a restored average goes on with the bits of the one that never stopped") {
  const Params params = two_parameters();
  Ema straight(params, 0.9);
  Sgd sgd(params, {.learning_rate = 0.1});
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    Ema resumed(params, 0.9);
    resumed.restore(straight.state());
    sgd.step(gradients_of(params, seed));
    straight.update();
    resumed.update();
    for (const auto& [name, value] : straight.state().tensors)
      CHECK(same_bits(value, resumed.state()[name]));
  }
  nn::NamedTensors damaged = straight.state();
  damaged.tensors["ema.values.u"] = zeros({2}, f64);
  CHECK_THROWS_WITH_AS(straight.restore(damaged),
                       doctest::Contains("ema: entry ema.values.u of the state is f64 [2], but has "
                                         "to be f64 [3, 7] (" __FILE__ ":"),
                       ValueError);
  damaged.tensors["ema.values.u"] = full({3, 7}, infinity, f64);
  CHECK_THROWS_AS(straight.restore(damaged), ValueError);
  damaged.tensors.erase("ema.values.u");
  CHECK_THROWS_AS(straight.restore(damaged), ValueError);
}

TEST_CASE("a functional call is the model with those parameters, bit for bit") {
  const Net net(1), other(2);
  const Tensor x = sequence(3);
  const nn::NamedTensors values = nn::from_params(other.params);
  const Tensor before = net.loss(x);
  CHECK(same_bits(nn::functional_call(net.params, values, [&] { return net.loss(x); }),
                  other.loss(x)));
  CHECK(same_bits(net.loss(x), before));
  // Steppers, too, and some of the parameters alone.
  const nn::NamedTensors head = nn::from_params(other.params / "head");
  const Tensor mixed = nn::functional_call(net.params, head, [&] { return net.loss(x); });
  CHECK_FALSE(same_bits(mixed, before));
  const Tensor row = x[0];
  const auto stepped = [&](const Net& of) { return nn::Stepper(of.rnn)(row).y; };
  CHECK(same_bits(nn::functional_call(net.params, values, [&] { return stepped(net); }),
                  stepped(other)));
}

TEST_CASE("functional calls nest, the innermost counts, and other threads do not see them") {
  const Params params(0, f64);
  const Param p = create(params, "p", {1});
  const auto value = [&] { return Tensor(p).item(); };
  const auto with = [&](double number, const auto& f) {
    nn::NamedTensors values;
    values.tensors["p"] = full({1}, number, f64);
    return nn::functional_call(params, values, f);
  };
  CHECK(with(2, [&] { return with(3, value) * 10 + value(); }) == 32);
  double elsewhere = 0;
  with(2, [&] { std::thread([&] { elsewhere = value(); }).join(); });
  CHECK(elsewhere == 1);
  CHECK_THROWS_AS(with(2, []() -> int { throw ValueError("inside"); }), ValueError);
  CHECK(value() == 1);
}

TEST_CASE("gradients flow through values that are recorded: a step of gradient descent") {
  // L(p - rate dL/dp), differentiated by p: what meta-learning needs.
  const Net net(1);
  const Tensor x = sequence(3), x2 = sequence(4);
  const auto after_a_step = [&] {
    Tape* tape = Tape::current();
    const Tensor inner = net.loss(x);
    nn::NamedTensors fast;
    if (tape) {
      const Gradients g = tape->gradient(inner, net.params, {.create_graph = true});
      for (const Param& p : net.params.list()) fast.tensors[p.name()] = p - 0.5 * g[p];
    } else {
      Tape own;
      const Gradients g = own.gradient(net.loss(x), net.params);
      const NoRecord pause;
      for (const Param& p : net.params.list()) fast.tensors[p.name()] = p.value() - 0.5 * g[p];
    }
    return nn::functional_call(net.params, fast, [&] { return net.loss(x2); });
  };
  CHECK(check_gradients(after_a_step, net.params).ok);
}

TEST_CASE("recomputation has the values of the call that encloses it") {
  const Net net(1);
  const Tensor x = sequence(3);
  const auto gradient = [&](bool in_segments) {
    Tape tape;
    nn::NamedTensors values;
    for (const Param& p : net.params.list()) values.tensors[p.name()] = p * p + 0.1;
    const Tensor loss = nn::functional_call(
        net.params, values, [&] { return net.loss(x, {.segment = in_segments ? 2 : 0}); });
    return tape.gradient(loss, net.params);
  };
  const Gradients whole = gradient(false), recomputed = gradient(true);
  whole.each([&](const auto& entry, const Tensor& expected) {
    CHECK(distance(recomputed[Param(entry)], expected) < 1e-14);
  });
  // What is in place only while the gradient is taken has no part in it.
  const auto late = [&](bool elsewhere) {
    Tape tape;
    const Tensor loss = net.loss(x, {.segment = 2});
    const auto take = [&] { return tape.gradient(loss, net.params); };
    return elsewhere ? nn::functional_call(net.params, nn::from_params(Net(2).params), take)
                     : take();
  };
  const Gradients expected = late(false), found = late(true);
  expected.each([&](const auto& entry, const Tensor& gradient) {
    CHECK(same_bits(found[Param(entry)], gradient));
  });
  // Constants in place of a parameter are there again when its gradient is computed.
  const Net other(2);
  const nn::NamedTensors recurrent = nn::from_params(other.params / "rnn");
  const auto of_head = [&](bool in_segments) {
    Tape tape;
    const Tensor loss = nn::functional_call(net.params, recurrent, [&] {
      return net.loss(tape.watch(x), {.segment = in_segments ? 2 : 0});
    });
    return tape.gradient(loss, net.params)["head.w"];
  };
  CHECK(distance(of_head(true), of_head(false)) < 1e-14);
}

TEST_CASE("mistakes in a functional call") {
  Net net(1);
  nn::NamedTensors values;
  const auto call = [&] {
    nn::functional_call(net.params, values, [&] { return net.loss(sequence(0)); });
  };
  values.tensors["head.v"] = zeros({1, 3}, f64);
  CHECK(error_of<ValueError>(call).starts_with(
      "functional_call: there is no parameter head.v; did you mean head.w? There are: rnn.w_ih"));
  values.tensors = {{"head.w", zeros({3}, f64)}};
  CHECK(error_of<ShapeError>(call).starts_with(
      "parameter head.w has shape [1, 3], the value in its place [3] (" __FILE__));
  values.tensors = {{"head.w", zeros({1, 3}, f32)}};
  CHECK(
      error_of<DTypeError>(call).starts_with("parameter head.w is f64, the value in its place "
                                             "f32; convert it with to() (" __FILE__));
  values.tensors = {{"head.w", Tensor()}};
  CHECK(error_of<ValueError>(call).starts_with(
      "parameter head.w: the value in its place is undefined (" __FILE__));
  values = nn::from_params(net.params);
  Sgd sgd(net.params, {.learning_rate = 1});
  const auto train_inside = [&] {
    nn::functional_call(net.params, values, [&] { sgd.step(gradients_of(net.params, 0)); });
  };
  CHECK(error_of<ValueError>(train_inside)
            .starts_with("parameter rnn.w_ih cannot be changed while another value is in its place "
                         "(functional_call) (" __FILE__));
  CHECK(same_bits(net.params["rnn.w_ih"].value(), values["rnn.w_ih"]));
}
