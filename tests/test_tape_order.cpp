// Tapes that are created, paused and destroyed in any order and on any thread; values of a tape
// that is used up.
#include <doctest/doctest.h>

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <thread>

#include <reel/autograd/checkpoint.h>
#include <reel/autograd/engine/chunked.h>
#include <reel/autograd/functional.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/generate/stepper.h>
#include <reel/nn/init.h>
#include <reel/nn/linear.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;
using testing::error_of;
using testing::same_bits;

namespace {

// The gradient of x² at 3, on the current tape.
double gradient_on(Tape& tape) {
  const Tensor x = tape.watch(scalar(3, f64));
  return tape.gradient(square(x), {x})[0].item();
}

}  // namespace

TEST_CASE("tapes end in any order") {
  auto a = std::make_unique<Tape>(), b = std::make_unique<Tape>(), c = std::make_unique<Tape>();
  CHECK(Tape::current() == c.get());
  SUBCASE("that of their beginning") {
    a.reset();
    CHECK(Tape::current() == c.get());
    b.reset();
    CHECK(gradient_on(*c) == 6);
    c.reset();
  }
  SUBCASE("the middle one, then the last") {
    b.reset();
    CHECK(Tape::current() == c.get());
    c.reset();
    CHECK(Tape::current() == a.get());
    CHECK(gradient_on(*a) == 6);
    a.reset();
  }
  CHECK(Tape::current() == nullptr);
  CHECK(square(scalar(3)).trace().generation == 0);
}

TEST_CASE("a tape that is replaced in a loop") {
  std::unique_ptr<Tape> tape;
  for (int i = 0; i < 3; ++i) {
    tape = std::make_unique<Tape>();  // the new one begins before the old one ends
    CHECK(Tape::current() == tape.get());
    CHECK(gradient_on(*tape) == 6);
  }
  std::optional<Tape> other;
  for (int i = 0; i < 3; ++i) other.emplace();
  tape.reset();
  CHECK(Tape::current() == &*other);
  other.reset();
  CHECK(Tape::current() == nullptr);
}

TEST_CASE("a tape is paused and resumed") {
  Tape paused({.paused = true});
  CHECK(Tape::current() == nullptr);
  const Tensor x = paused.watch(scalar(3, f64));
  CHECK(square(x).trace().generation == 0);
  paused.resume();
  const Tensor y = square(x);
  CHECK(y.trace().generation != 0);
  Tape other;
  paused.pause();
  paused.pause();
  CHECK(Tape::current() == &other);
  paused.resume();
  CHECK(Tape::current() == &paused);
  paused.resume();
  const Tensor z = y * x;
  paused.pause();
  CHECK(gradient_on(other) == 6);
  CHECK(paused.gradient(z, {x})[0].item() == 27);  // not current, and need not be
  CHECK(Tape::current() == &other);
}

TEST_CASE("a tape that ends within a scope of its own, or of none") {
  auto tape = std::make_unique<Tape>(TapeOptions{.paused = true});
  Tape outer;
  {
    const TapeScope scope(tape.get());
    CHECK(Tape::current() == tape.get());
    tape.reset();
    CHECK(Tape::current() == &outer);
    const NoRecord none;
    tape = std::make_unique<Tape>();
    CHECK(Tape::current() == tape.get());
    tape->pause();
    CHECK(Tape::current() == nullptr);
  }
  CHECK(Tape::current() == &outer);
}

TEST_CASE("a tape ends on another thread, or goes on there") {
  auto tape = std::make_unique<Tape>();
  std::thread([&] { tape.reset(); }).join();
  CHECK(Tape::current() == nullptr);
  CHECK(square(scalar(3)).item() == 9);

  Tape moved;
  const Tensor x = moved.watch(scalar(3, f64)), y = square(x);
  std::thread([&] {
    moved.resume();
    CHECK(Tape::current() == &moved);
    CHECK(moved.gradient(y * x, {x})[0].item() == 27);
  }).join();  // the thread is gone, and so is its stack
  CHECK(Tape::current() == nullptr);
  moved.resume();
  CHECK(gradient_on(moved) == 6);

  std::unique_ptr<Tape> from_there;
  std::thread([&] { from_there = std::make_unique<Tape>(); }).join();
  CHECK(Tape::current() == &moved);
  from_there->resume();
  CHECK(gradient_on(*from_there) == 6);
}

TEST_CASE("threads begin and end tapes at the same time") {
  std::array<std::thread, 4> threads;
  std::array<int, 4> right{};
  for (std::size_t t = 0; t < threads.size(); ++t)
    threads[t] = std::thread([&right, t] {
      std::deque<std::unique_ptr<Tape>> tapes;
      for (int i = 0; i < 300; ++i) {
        tapes.push_back(std::make_unique<Tape>());
        right[t] += gradient_on(*tapes.back()) == 6;
        if (tapes.size() > 3) tapes.pop_front();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const int count : right) CHECK(count == 300);
}

// Truncated backpropagation with a gradient every k1 steps that sees the k2 before it: a tape for
// each k1 steps, of which the latest k2 / k1 are alive.
TEST_CASE("windows of k1 and k2 steps are tapes in a deque") {
  constexpr Index steps = 12, k1 = 2, k2 = 6;
  const Params params(1, f64);
  const nn::RnnCell cell(params, 2, 3);
  const Tensor x = Rng(2).normal({steps, 1, 2}, 0, 1, f64);
  const auto run = [&](Tensor h, Index begin, Index end) {
    for (Index t = begin; t < end; ++t) h = cell(select(x, 0, t), {h}).y;
    return h;
  };
  struct Piece {
    std::unique_ptr<Tape> tape;
    Tensor before, after;
  };
  std::deque<Piece> pieces;
  std::vector<Tensor> states{zeros({1, 3}, f64)};
  for (Index begin = 0; begin < steps; begin += k1) {
    Piece piece{std::make_unique<Tape>(), {}, {}};
    piece.before = piece.tape->watch(states.back());
    piece.after = run(piece.before, begin, begin + k1);
    const Tensor loss = sum(square(piece.after));
    piece.tape->pause();
    states.push_back(piece.after.detach());
    pieces.push_back(std::move(piece));
    if (pieces.size() > k2 / k1) pieces.pop_front();

    // From the loss back through the pieces: each passes on the gradient of its first state.
    Gradients total;
    Tensor y = loss, seed;
    for (auto p = pieces.rbegin(); p != pieces.rend(); ++p) {
      const GradientOptions kept{.seed = seed, .keep = true};
      total += p->tape->gradient(y, params, kept);
      const Tensor handed_on = p->tape->gradient(y, {p->before}, kept)[0];
      if (std::next(p) != pieces.rend()) y = std::next(p)->after;
      seed = handed_on;
    }

    Tape whole;
    const Index first = std::max<Index>(0, begin + k1 - k2);
    const Tensor last = run(states[static_cast<std::size_t>(first / k1)], first, begin + k1);
    const Gradients expected = whole.gradient(sum(square(last)), params);
    for (const Param& p : params.list()) {
      const auto found = total[p].to_vector(), exact = expected[p].to_vector();
      for (std::size_t i = 0; i < exact.size(); ++i)
        CHECK(found[i] == doctest::Approx(exact[i]).epsilon(1e-10));
    }
  }
  CHECK(Tape::current() == nullptr);
}

TEST_CASE("what a gradient used up is a value where no gradient is needed") {
  const Params params(1);
  const nn::Linear head(params / "head", 3, 4);
  const nn::Lstm lstm(params / "lstm", 3, 3);
  const Tensor x = Rng(3).normal({5, 2, 3});
  Tape tape;
  const auto [y, state] = lstm(x);
  const Tensor logits = head(y);
  const Tensor loss = mean(square(logits));
  tape.gradient(loss, params);
  REQUIRE(Tape::current() == &tape);
  CHECK(tape.used_up());
  CHECK(argmax(logits, -1).shape() == Shape{5, 2});
  CHECK(sum(square(y) + 1).item() > 0);
  CHECK(mean(equal(argmax(logits, -1), zeros({5, 2}, i32)).to(f32)).item() >= 0);
  CHECK(same_bits(checkpoint([](auto in) { return sum(in[0]); }, {y.detach()}), sum(y)));
  CHECK(tape.size() == 0);
  const nn::Stepper step(lstm);
  CHECK(step(select(x, 0, 0)).y.shape() == Shape{2, 3});
  // Integers have no gradient: a chosen token is a constant in the next window too.
  const Tensor chosen = argmax(logits, -1);
  CHECK(sum(head(gather_rows(ones({4, 3}), chosen))).trace().generation != 0);
  CHECK(!tape.used_up());
  CHECK_THROWS_AS(step(select(x, 0, 0)), GradientError);
  CHECK(jvp([](const auto& in) { return square(in[0]); }, {y}, {y}).tangent.shape() == y.shape());
}

TEST_CASE(
    "a state that was not detached is refused on a tape that goes on, whatever is done to it") {
  const Params params(1);
  const nn::Lstm lstm(params / "lstm", 3, 3);
  const Tensor x = Rng(3).normal({5, 2, 3});
  Tape tape;
  for (int earlier = 0; earlier < 3; ++earlier) {
    const auto [y, state] = lstm(x);
    tape.gradient(sum(y), params);
    const nn::LstmState shrunk{0.5 * state.h, tanh(square(state.c))};
    CHECK_THROWS_AS(lstm(x, state), StaleTensorError);
    CHECK_THROWS_WITH_AS(lstm(x, shrunk), Contains("detach() carries its value"), StaleTensorError);
    CHECK_THROWS_AS(tape.gradient(sum(shrunk.h), params), StaleTensorError);
    CHECK(lstm(x, detach(shrunk)).y.defined());
    const Tensor watched = tape.watch(shrunk.h);
    CHECK(tape.gradient(sum(square(watched)), {watched})[0].shape() == Shape{2, 3});
  }
}

TEST_CASE("what was recorded before a tape was cleared, or failed, is refused") {
  Tape tape;
  Tensor y = square(tape.watch(scalar(3)));
  tape.clear();
  CHECK(!tape.used_up());
  CHECK_THROWS_AS(square(y), StaleTensorError);
  const Tensor x = tape.watch(scalar(3));
  tape.on_gradient(x, [](const Tensor&) -> Tensor { throw Error("no"); });
  y = square(x);
  CHECK_THROWS_AS(tape.gradient(y, {x}), GradientError);
  CHECK_THROWS_AS(square(y), StaleTensorError);
}

TEST_CASE("a tape remembers what it used up over any number of windows") {
  Tape tape;
  const auto window = [&] {
    const Tensor x = tape.watch(scalar(3));
    const Tensor y = square(x);
    tape.gradient(y, {x});
    return y;
  };
  const Tensor first = window();
  Tensor last;
  for (int i = 0; i < 70'000; ++i) last = window();  // more than a run of generations
  CHECK(tape.used_up());
  CHECK(square(first).item() == 81);
  CHECK(square(last).item() == 81);
  CHECK_THROWS_AS(first * tape.watch(scalar(1)), StaleTensorError);
  tape.clear();
  CHECK_THROWS_AS(square(first), StaleTensorError);
}

TEST_CASE("generations do not run out with 32 bits, and handles have not grown") {
  CHECK(sizeof(Trace{}.generation) == 8);
  CHECK(sizeof(Tensor) == 64);
  CHECK(checked_tape_index(max_tape_index) == 2147483647);
  CHECK_THROWS_WITH_AS(checked_tape_index(max_tape_index + 1),
                       Contains("a tape holds no more than"), ValueError);
}

TEST_CASE("more outputs than an op can have are refused") {
  const Shape s{1};
  op::Shapes shapes({s, s});
  while (shapes.count() < op::max_outputs) shapes.add(s);
  CHECK_THROWS_WITH_AS(shapes.add(s), "an op has at most 13 outputs, not 14", ValueError);
}

TEST_CASE("errors say whose tape a tensor is on") {
  Tape outer;
  const Tensor y = square(outer.watch(scalar(3)));
  {
    Tape inner;
    CHECK_THROWS_WITH_AS(square(y), Contains("on a tape around this one, which is still alive"),
                         StaleTensorError);
    CHECK_THROWS_WITH_AS(inner.gradient(y, {y}), Contains("on a tape around this one"),
                         StaleTensorError);
    outer.pause();
    CHECK_THROWS_WITH_AS(square(y), Contains("on a tape that is paused; resume() that one"),
                         StaleTensorError);
    outer.resume();
    outer.pause();
    std::string elsewhere;
    std::thread([&] {
      outer.resume();
      std::thread([&] {
        Tape own;
        elsewhere = error_of<StaleTensorError>([&] { square(y); });
      }).join();
    }).join();
    CHECK(elsewhere.find("on a tape of another thread") != std::string::npos);
  }
}

TEST_CASE("a second derivative without a graph of the first says what to do") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), y = square(x) * x;
  const Tensor g = tape.gradient(y, {x}, {.keep = true})[0];
  const int line = __LINE__ + 1;
  const std::string text = error_of<GradientError>([&] { tape.gradient(sum(g), {x}); });
  CHECK(
      text ==
      "gradient: the output was not recorded on this tape; watch() the inputs that it depends on, "
      "or use parameters, while the tape is current; detach() and to() give constants; a gradient "
      "that is to be differentiated again is recorded only with {.create_graph = true} (" +
          Site(__FILE__, line).str() + ")");
  const Tensor lost = tape.gradient(y, {x})[0];
  CHECK_THROWS_WITH_AS(tape.gradient(sum(lost), {x}), Contains("only with {.create_graph = true}"),
                       GradientError);
  CHECK_THROWS_WITH_AS(tape.gradient(sum(lost * x), {x}),
                       Contains("or {.create_graph = true} to differentiate one again"),
                       StaleTensorError);
}
