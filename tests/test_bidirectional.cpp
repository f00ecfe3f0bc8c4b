// Both directions of a layer, as one op where the layer has one.
#include <doctest/doctest.h>

#include <limits>

#include <reel/autograd/check/op_case.h>
#include <reel/reel.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;
using testing::error_of;
using testing::same_bits;
using Threads = testing::ThreadsScope;

namespace {

constexpr Index steps = 32, features = 5, units = 128;  // enough work for a thread

template <class L>
using Result = nn::Output<typename nn::Bidirectional<L>::State>;

template <class L>
Result<L> together(const nn::Bidirectional<L>& layer, const Tensor& x,
                   const typename nn::Bidirectional<L>::State& state,
                   const SequenceOptions& options) {
  return layer(x, state, nn::Eval{}, options);
}

// A bidirectional layer, written out.
template <class L>
Result<L> by_hand(const nn::Bidirectional<L>& layer, const Tensor& x,
                  const typename nn::Bidirectional<L>::State& state,
                  const SequenceOptions& options) {
  SequenceOptions reversed = options;
  reversed.reverse = !options.reverse;
  const auto there = layer.forward(x, state.forward, nn::Eval{}, options);
  const auto back = layer.backward(x, state.backward, nn::Eval{}, reversed);
  return {options.outputs ? concat({there.y, back.y}, -1) : Tensor(), {there.state, back.state}};
}

// Everything that a run computes: outputs, last states, and the gradients of x, of the first states
// and of the parameters.
template <class L>
std::vector<Tensor> run(decltype(together<L>) f, const nn::Bidirectional<L>& layer,
                        const Params& params, Index rows, const SequenceOptions& options,
                        const GradientOptions& gradient = {.keep = true}) {
  const DType dtype = params.list()[0].dtype();
  const auto draw = [&](const Shape& shape, std::uint64_t seed) {
    return Rng(seed).normal(shape, 0, 1, dtype);
  };
  Tape tape;
  std::vector<Tensor> inputs{tape.watch(draw({steps, rows, features}, 5))};
  std::uint64_t seed = 6;
  const auto state = layer(inputs[0].detach()).state.map([&](const Tensor& s) {
    return inputs.emplace_back(tape.watch(draw(s.shape(), seed++)));
  });
  const auto [y, last] = f(layer, inputs[0], state, options);
  std::vector<Tensor> all;
  Tensor loss = scalar(0, dtype);
  const auto use = [&](const Tensor& result) {
    all.push_back(result.detach());
    loss = loss + sum(result * draw(result.shape(), seed++));
    return result;
  };
  if (options.outputs) use(y);
  last.map(use);
  std::vector<Tensor> of_inputs = tape.gradient(loss, inputs, gradient);
  if (gradient.create_graph) {
    Tensor norm = scalar(0, dtype);
    for (const Tensor& g : of_inputs) norm = norm + sum(square(g));
    loss = loss + norm;
  }
  for (const Tensor& g : of_inputs) all.push_back(g.detach());
  const Gradients of_params = tape.gradient(loss, params);
  for (const Param& p : params.list()) all.push_back(of_params[p]);
  return all;
}

// The same bits, but for the gradient of x: its sum over both directions is another one.
void check_same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  REQUIRE(a.size() == b.size());
  int different = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    if (same_bits(a[i], b[i])) continue;
    ++different;
    CHECK(a[i].shape() == Shape{steps, a[i].size(1), features});
    CHECK(op::detail::relative_difference(a[i], b[i]) < 1e-5);
  }
  CHECK(different <= 1);
}

// The first rows have different lengths, from 0 up; all others have full length.
Tensor some_lengths(Index rows) {
  Tensor lengths = full({rows}, steps, i32);
  for (Index row = 0; row < rows - 1 && row < 3; ++row)
    lengths.edit<std::int32_t>()[static_cast<std::size_t>(row)] =
        static_cast<std::int32_t>(9 * row);
  return lengths;
}

static_assert(nn::RunsBothWays<nn::Rnn> && nn::RunsBothWays<nn::Gru> && nn::RunsBothWays<nn::Lstm>);
static_assert(!nn::RunsBothWays<nn::Unroll<nn::LstmCell>> &&
              !nn::RunsBothWays<nn::Stacked<nn::Lstm>>);

}  // namespace

TEST_CASE_TEMPLATE("both directions have the same bits as each by itself, on any number of threads",
                   L, nn::Rnn, nn::Gru, nn::Lstm) {
  for (const DType dtype : {f32, f64}) {
    const Params params(1, dtype);
    const nn::Bidirectional<L> layer(params, features, units);
    const auto check = [&](Index rows, const SequenceOptions& options) {
      const Threads one(1);
      const auto expected = run<L>(by_hand<L>, layer, params, rows, options);
      for (const int n : {1, 2, 3, 4, 8}) {
        CAPTURE(dtype);
        CAPTURE(rows);
        CAPTURE(n);
        set_threads(n);
        check_same(expected, run<L>(together<L>, layer, params, rows, options));
      }
    };
    check(1, {});
    check(3, {});
    check(3, {.lengths = some_lengths(3)});
    check(16, {.lengths = some_lengths(16)});
  }
}

TEST_CASE_TEMPLATE("in reverse, in segments, and without outputs", L, nn::Rnn, nn::Gru, nn::Lstm,
                   nn::Unroll<nn::GruCell>) {
  const Threads two(2);
  const Params params(2);
  const nn::Bidirectional<L> layer(params, features, units);
  for (const SequenceOptions& options :
       {SequenceOptions{.reverse = true}, SequenceOptions{.segment = 15},
        SequenceOptions{.lengths = some_lengths(3), .segment = 15, .outputs = false}})
    check_same(run<L>(by_hand<L>, layer, params, 3, options),
               run<L>(together<L>, layer, params, 3, options));
}

TEST_CASE_TEMPLATE("a graph of the gradient through both directions", L, nn::Rnn, nn::Gru,
                   nn::Lstm) {
  const Threads two(2);
  const Params params(3, f64);
  const nn::Bidirectional<L> layer(params, features, units);
  const GradientOptions graph{.create_graph = true};
  check_same(run<L>(by_hand<L>, layer, params, 1, {}, graph),
             run<L>(together<L>, layer, params, 1, {}, graph));
}

TEST_CASE("an error in one direction is reported as usual, and the tape stays usable") {
  const Params params(5);
  const nn::Bidirectional<nn::Lstm> layer(params, features, units);
  const auto errors = [&](int n) {
    const Threads some(n);
    Tape tape;
    const Tensor x = tape.watch(Rng(6).normal({steps, 1, features}));
    nn::Bidirectional<nn::Lstm>::State wrong;
    wrong.backward.c = zeros({2, units});
    const Tensor lengths = full({1}, steps + 1, i32);
    std::vector<std::string> texts{
        error_of<ShapeError>([&] { layer(x, wrong); }),
        error_of<ValueError>([&] { layer(x, {}, nn::Eval{}, {.lengths = lengths}); }),
        error_of<ValueError>([&] { layer(x, {}, nn::Eval{}, {.outputs = false}); })};
    const Tensor g = tape.gradient(sum(layer(x).y), {x})[0];
    Tape fresh;
    const Tensor again = fresh.watch(x.detach());
    CHECK(same_bits(fresh.gradient(sum(layer(again).y), {again})[0], g));
    return texts;
  };
  const auto texts = errors(2);
  CHECK(texts == errors(1));
  CHECK(texts[0].starts_with("backward: the state is f32 [2, 128], but has to be [1, 128] for x"));
  CHECK(texts[0].find("test_bidirectional.cpp:") != std::string::npos);
  CHECK(texts[1].find("between 0 and 32; one is 33 (") != std::string::npos);
  CHECK(texts[2].starts_with("lstm: all steps at once make all outputs"));
}

TEST_CASE("profiles and check_finite see both directions") {
  const Params params(7);
  const nn::Bidirectional<nn::Lstm> layer(params / "tagger", features, units);
  Tensor x = Rng(8).normal({steps, 1, features});
  {
    Tape tape({.profile = true});
    tape.gradient(sum(layer(x).y), params);
    std::vector<std::string> seen;
    for (const Profile::Event& event : tape.profile().events())
      if (event.op == "lstm")
        seen.push_back((event.pass == Profile::Pass::forward ? "forward of " : "backward of ") +
                       tape.profile().modules()[static_cast<std::size_t>(event.module)]);
    CHECK(seen == std::vector<std::string>{"forward of tagger", "backward of tagger"});
  }
  Tape tape({.check_finite = true});
  CHECK(layer(x).y.shape() == Shape{steps, 1, 2 * units});
  params["tagger.backward.b"].edit<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  const std::string text = error_of<NotFiniteError>([&] {
    Tape fresh({.check_finite = true});
    layer(x);
  });
  CHECK_MESSAGE(text.find("lstm") != std::string::npos, text);
}
