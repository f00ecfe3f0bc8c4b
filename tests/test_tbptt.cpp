// optim::Tbptt: truncated backpropagation through time against its definition.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include "tbptt.h"
#include "testing.h"

using namespace reel;
using namespace reel::testing;

TEST_CASE_TEMPLATE("tbptt: every update has the gradient of the definition", L, nn::Rnn, nn::Gru,
                   nn::Lstm, nn::Stacked<nn::Gru>, nn::Unroll<nn::LstmCell>) {
  check_definition<L>(0);
}

TEST_CASE_TEMPLATE("tbptt: parameters that change count with the values that each step ran with", L,
                   nn::Rnn, nn::Gru, nn::Lstm, nn::Stacked<nn::Lstm>, nn::Unroll<nn::GruCell>) {
  check_definition<L>(0.5);
}

TEST_CASE("tbptt: k1 = k2 is windows with detach, bit for bit") {
  using L = nn::Stacked<nn::Lstm>;
  for (const DType dtype : {f32, f64}) {
    const Index steps = 23, k = 5;  // the last window is shorter
    const Tensor x = tokens(steps, 1), targets = tokens(steps, 2);
    const Net<L> a(Params(3, dtype), 4, 0.2), b(Params(3, dtype), 4, 0.2);
    optim::Adam adam_a(a.params, {.learning_rate = 0.1}), adam_b(b.params, {.learning_rate = 0.1});
    std::vector<double> losses_a, losses_b;

    Rng rng_a(7);
    L::State state;
    for (Index begin = 0; begin < steps; begin += k) {
      const Index end = std::min(steps, begin + k);
      Tape tape;
      const auto [loss, next] =
          a(slice(x, 0, begin, end), slice(targets, 0, begin, end), state, nn::Train{rng_a});
      adam_a.step(tape.gradient(loss, a.params));
      losses_a.push_back(loss.item());
      state = detach(next);
    }

    Rng rng_b(7);
    optim::Tbptt<L::State> tbptt(b.params, {.k1 = k, .k2 = k});
    const auto model = [&](const Tensor& in, const Tensor& out, const L::State& before) {
      return b(in, out, before, nn::Train{rng_b});
    };
    const auto update = [&](Gradients& gradients, double loss) {
      adam_b.step(gradients);
      losses_b.push_back(loss);
    };
    tbptt.run({x, targets}, model, update);
    tbptt.finish(update);
    CHECK(losses_a == losses_b);
    check_same_bits(a.params, b.params);
  }
}

namespace {

// Fixed parameters, so that one tape can hold everything since the beginning.
template <class Model, class State>
void check_full(const Params& params, const Model& model, State, Index steps, Index k1, Index k2,
                LossReduction reduction = LossReduction::mean) {
  CAPTURE(k1);
  CAPTURE(k2);
  CAPTURE(steps);
  const Tensor x = tokens(steps, 1), targets = tokens(steps, 2);
  struct Part {
    Index begin, end;
  };
  std::vector<Part> parts;  // those of the model's calls
  optim::Tbptt<State> tbptt(params, {.k1 = k1, .k2 = k2, .reduction = reduction});
  const auto recorded = [&](const Tensor& in, const Tensor& out, const State& state) {
    parts.push_back({tbptt.position(), tbptt.position() + in.size(0)});
    return model(in, out, state, parts.back().begin);
  };
  tbptt.run({x, targets}, recorded, [&](const Gradients& gradients, double) {
    const Index end = parts.back().end, begin = end - k1;
    Tape tape;
    State state;
    Tensor loss;
    for (const Part& part : parts) {
      const auto [of_part, next] =
          model(slice(x, 0, part.begin, part.end), slice(targets, 0, part.begin, part.end), state,
                part.begin);
      state = next;
      if (part.begin < begin) continue;
      const double weight =
          reduction == LossReduction::sum
              ? 1
              : static_cast<double>(part.end - part.begin) / static_cast<double>(end - begin);
      const Tensor term = of_part * weight;
      loss = loss.defined() ? loss + term : term;
    }
    check_same_bits(gradients, tape.gradient(loss, params));
  });
}

}  // namespace

TEST_CASE_TEMPLATE("tbptt: k2 >= T is backpropagation to the beginning, bit for bit", L, nn::Rnn,
                   nn::Stacked<nn::Gru>, nn::Lstm, nn::Unroll<nn::LstmCell>) {
  for (const DType dtype : {f32, f64}) {
    const Net<L> net(Params(3, dtype));
    const auto model = [&](const Tensor& in, const Tensor& out, const auto& state, Index) {
      return net(in, out, state);
    };
    check_full(net.params, model, typename L::State{}, 20, 5, 20);
    check_full(net.params, model, typename L::State{}, 20, 5, 23);
    check_full(net.params, model, typename L::State{}, 20, 3, 20, LossReduction::sum);
    // f32 sums of more than 64 terms have a part in double.
    if (dtype == f32)
      check_full(net.params, model, typename L::State{}, sanitized ? 70 : 140, 1, 1000);
  }
}

TEST_CASE("tbptt: a parameter that only some steps use") {
  const Params params(1);
  const Net<nn::Gru> net(params);
  const Param bias = params.create("bias", {symbols}, nn::init::normal(1));
  const auto model = [&](const Tensor& in, const Tensor& out, const nn::HiddenState& state,
                         Index begin) {
    const auto [y, next] = net.layers(net.embed(in), state);
    const Tensor logits = net.head(y);
    return std::pair(cross_entropy(begin % 8 == 4 ? logits + bias : logits, out), next);
  };
  check_full(params, model, nn::HiddenState{}, 30, 2, 40);
}

TEST_CASE("tbptt: segments that the backward pass recomputes have the parameters of their time") {
  std::vector<std::vector<double>> losses(2);
  for (const bool in_segments : {false, true}) {
    const Net<nn::Lstm> net(Params(3, f64));
    optim::Sgd sgd(net.params, {.learning_rate = 0.5});
    optim::Tbptt<nn::LstmState> tbptt(net.params, {.k1 = 4, .k2 = 12});
    const auto model = [&](const Tensor& in, const Tensor& out, const nn::LstmState& state) {
      const auto [y, next] = net.layers(net.embed(in), state, {.segment = in_segments ? 2 : 0});
      return std::pair(cross_entropy(net.head(y), out), next);
    };
    tbptt.run({tokens(60, 1), tokens(60, 2)}, model, [&](const Gradients& gradients, double loss) {
      losses[in_segments].push_back(loss);
      losses[in_segments].push_back(gradients.norm());
      sgd.step(gradients);
    });
  }
  REQUIRE(losses[0].size() == 30);
  for (std::size_t i = 0; i < 30; ++i)
    CHECK(losses[0][i] == doctest::Approx(losses[1][i]).epsilon(1e-12));
}
