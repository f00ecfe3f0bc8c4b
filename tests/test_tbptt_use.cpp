// optim::Tbptt in use: its cost, resuming, errors, hooks.
#include <doctest/doctest.h>

#include <algorithm>
#include <stdexcept>
#include <thread>

#include <reel/reel.h>

#include "tbptt.h"
#include "testing.h"

using namespace reel;
using namespace reel::testing;
using doctest::Contains;

namespace {

struct CountingCell : nn::GruCell {
  using nn::GruCell::GruCell;
  nn::Output<nn::HiddenState> operator()(const Tensor& x, const nn::HiddenState& state,
                                         const nn::Mode& mode) const {
    ++calls;
    return nn::GruCell::operator()(x, state, mode);
  }
  static inline Index calls = 0;
};

}  // namespace

TEST_CASE("tbptt: every step is computed once") {
  const Net<nn::Unroll<CountingCell>> net(Params(1));
  optim::Sgd sgd(net.params, {.learning_rate = 0.1});
  for (Index k1 = 1; k1 <= 6; ++k1)
    for (Index k2 = 1; k2 <= 20; k2 += 3) {
      CAPTURE(k1);
      CAPTURE(k2);
      optim::Tbptt<nn::HiddenState> tbptt(net.params, {.k1 = k1, .k2 = k2});
      CountingCell::calls = 0;
      const auto update = [&](const Gradients& gradients, double) { sgd.step(gradients); };
      tbptt.run(
          {tokens(19, 1), tokens(19, 2)},
          [&](const Tensor& in, const Tensor& out, const nn::HiddenState& state) {
            return net(in, out, state);
          },
          update);
      tbptt.finish(update);
      CHECK(CountingCell::calls == 19);
    }
}

TEST_CASE("tbptt: memory is bounded by k2, not by the length of the sequence") {
  struct Use {
    std::int64_t held = 0;
    std::size_t peak = 0;
  };
  const auto use_of = [](Index steps, Index k2) {
    Use use;
    std::thread([&] {  // with its own pool
      const Net<nn::Lstm> net(Params(1), 32);
      optim::Sgd sgd(net.params, {.learning_rate = 0.1});
      optim::Tbptt<nn::LstmState> tbptt(net.params, {.k1 = 5, .k2 = k2});
      const auto model = [&](const Tensor& in, const Tensor& out, const nn::LstmState& state) {
        use.held = std::max(use.held, tbptt.held_bytes());
        return net(in, out, state);
      };
      for (Index i = 0; i < steps; i += 10)
        tbptt.run({tokens(10, 1, 8), tokens(10, 2, 8)}, model,
                  [&](const Gradients& gradients, double) { sgd.step(gradients); });
      use.peak = pool::statistics().peak_bytes;
    })
        .join();
    return use;
  };
  const Index long_one = testing::sanitized ? 400 : 2000;
  const Use few = use_of(200, 40), many = use_of(long_one, 40), longer = use_of(long_one, 80);
  CHECK(few.held > 0);
  CHECK(few.held == many.held);
  CHECK(few.peak == many.peak);
  // Between updates the tapes hold k2 - k1 steps.
  CHECK(static_cast<double>(longer.held) / static_cast<double>(many.held) ==
        doctest::Approx(75.0 / 35).epsilon(0.02));
  CHECK(use_of(200, 5).held == 0);
}

TEST_CASE("tbptt: any number of threads gives the same bits") {
  const testing::ThreadsScope restored;
  std::vector<std::vector<Tensor>> results;
  for (const int threads : {1, 2, 3, 8}) {
    set_threads(threads);
    const Net<nn::Stacked<nn::Lstm>> net(Params(1), 48, 0.2);
    optim::Adam adam(net.params, {.learning_rate = 0.01});
    Rng rng(5);
    optim::Tbptt<nn::Stacked<nn::Lstm>::State> tbptt(net.params, {.k1 = 3, .k2 = 8});
    const Tensor x = tokens(24, 1, 32), targets = tokens(24, 2, 32);
    tbptt.run(
        {x, targets},
        [&](const Tensor& in, const Tensor& out, const auto& state) {
          return net(in, out, state, nn::Train{rng});
        },
        [&](const Gradients& gradients, double) { adam.step(gradients); });
    std::vector<Tensor>& values = results.emplace_back();
    for (const Param& p : net.params.list()) values.push_back(p.value());
  }
  for (const auto& values : results)
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(same_bits(values[i], results[0][i]));
}

TEST_CASE("tbptt: data may arrive in pieces of any length") {
  for (const auto& ks : {std::pair<Index, Index>{4, 10}, {5, 5}, {6, 2}}) {
    const Index k1 = ks.first, k2 = ks.second;
    CAPTURE(k1);
    CAPTURE(k2);
    std::vector<std::vector<double>> figures;
    for (const Index piece : {40, 1, 3, 7}) {
      const Net<nn::Gru> net(Params(1, f64));
      optim::Sgd sgd(net.params, {.learning_rate = 0.5});
      std::vector<double>& of_piece = figures.emplace_back();
      const auto update = [&](const Gradients& gradients, double loss) {
        of_piece.insert(of_piece.end(), {loss, gradients.norm()});
        sgd.step(gradients);
      };
      optim::Tbptt<nn::HiddenState> tbptt(net.params, {.k1 = k1, .k2 = k2});
      const Tensor x = tokens(40, 1), targets = tokens(40, 2);
      for (Index begin = 0; begin < 40; begin += piece) {
        const Index end = std::min<Index>(40, begin + piece);
        tbptt.run(
            {slice(x, 0, begin, end), slice(targets, 0, begin, end)},
            [&](const Tensor& in, const Tensor& out, const nn::HiddenState& state) {
              return net(in, out, state);
            },
            update);
      }
      tbptt.finish(update);
      REQUIRE(of_piece.size() == figures[0].size());
      for (std::size_t i = 0; i < of_piece.size(); ++i)
        CHECK(of_piece[i] == doctest::Approx(figures[0][i]).epsilon(1e-12));
    }
  }
}

namespace {

// A training that can be saved and resumed.
struct Training {
  using L = nn::Stacked<nn::Lstm>;

  Training(Index k1, Index k2) : k1(k1), tbptt(net.params, {.k1 = k1, .k2 = k2, .rng = &rng}) {}

  auto model() {
    return [this](const Tensor& in, const Tensor& out, const L::State& state) {
      return net(in, out, state, nn::Train{rng});
    };
  }
  void run(Index begin, Index end) {
    tbptt.run({slice(x, 0, begin, end), slice(targets, 0, begin, end)}, model(),
              [&](const Gradients& gradients, double) { adam.step(gradients); });
  }

  Index k1;
  Net<L> net{Params(3), 4, 0.2};
  optim::Adam adam{net.params, {.learning_rate = 0.05}};
  Rng rng{7};
  Tensor x = tokens(36, 1), targets = tokens(36, 2);
  optim::Tbptt<L::State> tbptt;
};

}  // namespace

TEST_CASE("tbptt: resumed after any update it goes on bit for bit") {
  for (const auto& ks : {std::pair<Index, Index>{3, 3}, {3, 9}, {4, 10}, {6, 2}, {1, 5}}) {
    const Index k1 = ks.first, k2 = ks.second;
    Training whole(k1, k2);
    whole.run(0, 36);
    for (Index at = 0; at <= 36; at += sanitized ? 3 * k1 : k1) {
      CAPTURE(k1);
      CAPTURE(k2);
      CAPTURE(at);
      Training first(k1, k2), second(k1, k2);
      if (at > 0) first.run(0, at);
      const auto history = first.tbptt.history();
      CHECK(history.position == at);
      CHECK(history.steps == std::min(at, std::max<Index>(0, k2 - k1)));
      nn::load_params(nn::from_params(first.net.params), second.net.params);
      second.adam.restore(first.adam.state());
      // Without steps to run again the data are not looked at.
      const Index from = std::min<Index>(at - history.steps, 35), to = std::max(from + 1, at);
      const auto of = [&](const Tensor& data) { return slice(data, 0, from, to); };
      second.tbptt.restore(history, {of(second.x), of(second.targets)}, second.model());
      check_same_bits(first.net.params, second.net.params);
      CHECK(second.rng.state() == first.rng.state());
      if (at < 36) second.run(at, 36);
      check_same_bits(whole.net.params, second.net.params);
    }
  }
}

namespace {
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
}  // namespace

TEST_CASE("tbptt: a history of other settings is refused") {
  Training a(2, 6);
  a.run(0, 8);
  const auto history = a.tbptt.history();
  const auto refusal = [&](auto change, Index k1 = 2, Index k2 = 6, Index steps = 4) {
    Training b(k1, k2);
    auto changed = history;
    change(changed);
    return error_of<ValueError>([&] {
      b.tbptt.restore(changed, {slice(b.x, 0, 0, steps), slice(b.targets, 0, 0, steps)}, b.model());
    });
  };
  const auto nothing = [](auto&) {};
  CHECK(refusal(nothing) == "nothing thrown");
  CHECK(contains(refusal(nothing, 3, 6), "there is no update at position 8"));
  CHECK(contains(refusal(nothing, 2, 8), "4 of its steps are to be run again, not 6"));
  CHECK(contains(refusal(nothing, 2, 6, 3), "the data have 3 time steps, but the history is of 4"));
  CHECK(contains(refusal([](auto& h) { h.params.pop_back(); }),
                 "it has the parameters of 1 intervals, not 2"));
  CHECK(contains(refusal([](auto& h) { h.params[1].tensors.erase("head.b"); }), "head.b"));
  a.run(8, 9);
  CHECK_THROWS_WITH_AS(a.tbptt.history(),
                       Contains("Tbptt: step 8 is not one of an update; save after an update ("),
                       ValueError);
}

TEST_CASE("tbptt: errors") {
  const Net<nn::Lstm> net(Params(1));
  using State = nn::LstmState;
  CHECK_THROWS_WITH_AS(
      optim::Tbptt<State>(net.params, {.k2 = 3}),
      Contains("Tbptt: k1 is 0, but has to be at least 1, a number of time steps (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_WITH_AS(optim::Tbptt<State>(net.params, {.k1 = 3, .k2 = -1}),
                       Contains("Tbptt: k2 is -1, but has to be at least 1"), ValueError);

  optim::Tbptt<State> tbptt(net.params, {.k1 = 2, .k2 = 4});
  const auto model = [&](const Tensor& in, const Tensor& out, const State& state) {
    return net(in, out, state);
  };
  const auto ignore = [](const Gradients&, double) {};
  const Tensor x = tokens(4, 1);
  CHECK_THROWS_WITH_AS(tbptt.run({x, Tensor()}, model, ignore),
                       Contains("Tbptt: the data have an undefined tensor"), ValueError);
  CHECK_THROWS_WITH_AS(tbptt.run({zeros({0, 2}, i32), x}, model, ignore),
                       Contains("Tbptt: the sequence has no steps; it is i32 [0, 2] (" __FILE__),
                       ShapeError);
  CHECK_THROWS_WITH_AS(tbptt.run({x, scalar(1, f32)}, model, ignore),
                       Contains("without an axis of time steps"), ShapeError);
  CHECK_THROWS_WITH_AS(
      tbptt.run({x, tokens(3, 1)}, model, ignore),
      Contains("the data have different numbers of time steps: i32 [4, 2] and i32 [3, 2]"),
      ShapeError);

  CHECK_THROWS_WITH_AS(
      tbptt.run(
          {x},
          [&](const Tensor& in, const State& state) {
            const auto [y, next] = net.layers(net.embed(in), state);
            return std::pair(y, next);
          },
          ignore),
      Contains("Tbptt: the loss of steps 0 to 1 is f32 [2, 2, 4], not a single number of f32 or "
               "f64; reduce it with mean() or sum() (" __FILE__),
      ShapeError);
  CHECK_THROWS_WITH_AS(
      tbptt.run(
          {x}, [](const Tensor&, const State& s) { return std::pair(Tensor(), s); }, ignore),
      Contains("Tbptt: the loss of steps 0 to 1 is undefined"), ValueError);
  CHECK_THROWS_WITH_AS(
      tbptt.run(
          {x}, [](const Tensor&, const State& s) { return std::pair(scalar(1), s); }, ignore),
      Contains("gradient: the loss was not recorded on this tape"), GradientError);
  tbptt.reset();

  CHECK_THROWS_WITH_AS(
      tbptt.run(
          {x, x},
          [&](const Tensor& in, const Tensor& out, const State& state) {
            auto [loss, next] = net(in, out, state);
            if (state.h.defined()) next.c = concat({next.c, next.c}, 1);
            return std::pair(loss, next);
          },
          ignore),
      Contains("Tbptt: tensor 1 of the state is f32 [2, 4] before steps 2 to 3 and f32 [2, 8] "
               "after them; a model returns a state like the one that it gets"),
      ShapeError);
  // The part before was done, with its update.
  CHECK(tbptt.position() == 2);

  const Net<nn::Stacked<nn::Gru>> stack(Params(1));
  using Layers = nn::StackedState<nn::HiddenState>;
  optim::Tbptt<Layers> of_stack(stack.params, {.k1 = 2, .k2 = 4});
  CHECK_THROWS_WITH_AS(of_stack.run(
                           {x, x},
                           [&](const Tensor& in, const Tensor& out, const Layers& state) {
                             auto [loss, next] = stack(in, out, state);
                             if (!state.layers.empty()) next.layers.pop_back();
                             return std::pair(loss, next);
                           },
                           ignore),
                       Contains("Tbptt: the state has 2 tensors before steps 2 to 3 and 1 after"),
                       ShapeError);
  CHECK(Tape::current() == nullptr);
}

TEST_CASE("tbptt: a parameter that changes between two updates is refused") {
  const Net<nn::Gru> net(Params(1));
  const Param& b = net.head.b;
  optim::Tbptt<nn::HiddenState> tbptt(net.params, {.k1 = 4, .k2 = 10});
  int calls = 0;
  const auto model = [&](const Tensor& in, const Tensor& out, const nn::HiddenState& state) {
    if (++calls == 6) Param(b).set(b.value() + 1);  // within the third window, which has two parts
    return net(in, out, state);
  };
  CHECK_THROWS_WITH_AS(
      tbptt.run({tokens(20, 1), tokens(20, 2)}, model, [](const Gradients&, double) {}),
      Contains("gradient: parameter head.b was changed between forward and backward"),
      StaleTensorError);
  CHECK(tbptt.position() == 12);
  // Without that update it goes on.
  int updates = 0;
  tbptt.run({tokens(8, 1), tokens(8, 2)}, model, [&](const Gradients&, double) { ++updates; });
  CHECK(updates == 2);
}

TEST_CASE("tbptt: what the model throws leaves everything as it was before the part") {
  Training a(2, 6), b(2, 6);
  a.run(0, 20);
  b.run(0, 10);
  CHECK_THROWS_AS(b.tbptt.run(
                      {b.x, b.targets},
                      [](const Tensor& in, const Tensor&, const auto& state) {
                        if (in.size(0) > 0) throw std::runtime_error("no");
                        return std::pair(Tensor(), state);
                      },
                      [](const Gradients&, double) {}),
                  std::runtime_error);
  CHECK(Tape::current() == nullptr);
  b.run(10, 20);
  check_same_bits(a.net.params, b.net.params);
}

TEST_CASE("tbptt: hooks see the gradient of a parameter once, complete") {
  const Net<nn::Gru> net(Params(1, f64));
  optim::Tbptt<nn::HiddenState> tbptt(net.params, {.k1 = 2, .k2 = 6});
  std::vector<Tensor> seen;
  const auto model = [&](const Tensor& in, const Tensor& out, const nn::HiddenState& state) {
    Tape::current()->on_gradient(net.head.w, [&](const Tensor& g) {
      seen.push_back(g);
      return 2.0 * g;
    });
    return net(in, out, state);
  };
  tbptt.run({tokens(10, 1), tokens(10, 2)}, model, [&](const Gradients& gradients, double) {
    REQUIRE(seen.size() == 1);
    CHECK(same_bits(gradients["head.w"], 2.0 * seen[0]));
    seen.clear();
  });
}

TEST_CASE("tbptt: a state that is given begins a sequence, as a constant") {
  const Net<nn::Gru> net(Params(1, f64));
  const Tensor h = Rng(1).normal({rows, 4}, 0, 1, f64), x = tokens(6, 1);
  optim::Tbptt<nn::HiddenState> tbptt(net.params, {.k1 = 6, .k2 = 6});
  tbptt.reset({h});
  tbptt.run(
      {x, x},
      [&](const Tensor& in, const Tensor& out, const nn::HiddenState& state) {
        return net(in, out, state);
      },
      [&](const Gradients& gradients, double) {
        Tape tape;
        check_same_bits(gradients, tape.gradient(net(x, x, {h}).first, net.params));
      });
  CHECK(tbptt.state().h.shape() == Shape{rows, 4});
  CHECK(tbptt.state().h.trace().generation == 0);
  tbptt.reset();
  CHECK_FALSE(tbptt.state().h.defined());
}
