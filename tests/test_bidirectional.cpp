// Both directions of a layer, and other independent calls, run concurrently.
#include <doctest/doctest.h>

#include <chrono>
#include <condition_variable>
#include <limits>
#include <mutex>

#include <reel/autograd/engine/side_by_side.h>
#include <reel/reel.h>

#include "testing.h"

using namespace reel;
using namespace reel::op;
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

void check_same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(same_bits(a[i], b[i]));
  }
}

// The first rows have different lengths, from 0 up; all others have full length.
Tensor some_lengths(Index rows) {
  Tensor lengths = full({rows}, steps, i32);
  for (Index row = 0; row < rows - 1 && row < 3; ++row)
    lengths.edit<std::int32_t>()[static_cast<std::size_t>(row)] =
        static_cast<std::int32_t>(9 * row);
  return lengths;
}

// A barrier for two kernels with a timeout: one that is alone for too long continues without the
// other.
class MeetingPoint {
 public:
  void arrive() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    met_ &= changed_.wait_for(lock, std::chrono::seconds(5), [&] { return arrived_ % 2 == 0; });
  }
  int arrived() const { return arrived_; }
  bool met() const { return met_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0;
  bool met_ = true;
};
MeetingPoint* forward_kernels = nullptr;
MeetingPoint* backward_kernels = nullptr;

template <Real T>
void write_twice(const T* from, std::span<T> to) {
  std::transform(from, from + to.size(), to.begin(), [](T x) { return 2 * x; });
}

// y = 2 x. If the first number is -1 the kernel throws, if it is -2 the backward kernel.
Definition<> doubling() {
  return {
      .name = "doubling",
      .arguments = {"x"},
      .shape = same_shape,
      .forward =
          []<Real T>(Ctx<T> c) {
            if (forward_kernels) forward_kernels->arrive();
            if (c.in(0)[0] == -1) throw ValueError("no room for -1");
            write_twice(c.in(0).data(), c.out());
          },
      .gradient = fused(
          []<Real T>(BackwardCtx<T> c) {
            if (backward_kernels) backward_kernels->arrive();
            if (c.in(0)[0] == -2) throw ValueError("no way back from -2");
            write_twice(c.g(), std::span(c.grad(0), static_cast<std::size_t>(c.shape(0).size())));
          },
          [](std::span<const Tensor> in) { return Tensors{2 * in[0]}; }),
      .samples = {normal({3})},
      .one_thread = [](const Shape&) { return true; },
  };
}

// A user-defined layer that is one op.
const Op<>* doubling_op = nullptr;
struct Doubling {
  using State = nn::HiddenState;
  static constexpr bool one_op = true;
  Doubling(const Params&, Index input_size, Index) : size(input_size) {}
  nn::Output<State> operator()(const Tensor& x, const State&, const nn::Mode&,
                               const SequenceOptions&, Site site = {}) const {
    return {(*doubling_op)({&x}, site), {}};
  }
  Index output_size() const { return size; }
  Index size;
};

static_assert(nn::OneOpLayer<nn::Rnn> && nn::OneOpLayer<nn::Gru> && nn::OneOpLayer<nn::Lstm>);
static_assert(!nn::OneOpLayer<nn::Unroll<nn::LstmCell>> && !nn::OneOpLayer<nn::Stacked<nn::Lstm>>);

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

TEST_CASE("layers with few rows and much work leave threads idle") {
  for (const OpSpec* op : registry()) {
    if (op->name != "rnn" && op->name != "gru" && op->name != "lstm") continue;
    CAPTURE(op->name);
    const auto idle = [&](int n, const Shape& y) {
      const Threads some(n);
      return op->leaves_threads_idle(y);
    };
    CHECK(idle(2, {steps, 1, units}));
    CHECK(idle(8, {steps, 7, units}));
    CHECK_FALSE(idle(2, {steps, 8, units}));
    CHECK_FALSE(idle(1, {steps, 1, units}));
    CHECK_FALSE(idle(2, {steps, 1, units - 1}));
  }
}

TEST_CASE("kernels of both directions run at the same time, forward and backward") {
  const Threads two(2);
  const Op<> op(doubling());
  doubling_op = &op;
  const nn::Bidirectional<Doubling> layer(Params(4), 3, 3);
  MeetingPoint there, back;
  forward_kernels = &there;
  backward_kernels = &back;
  {
    Tape tape;
    const Tensor x = tape.watch(ones({2, 1, 3}));
    const Tensor y = layer(x).y;
    CHECK(same_bits(y, full({2, 1, 6}, 2)));
    CHECK(same_bits(tape.gradient(sum(y), {x})[0], full({2, 1, 3}, 4)));
  }
  CHECK(there.arrived() == 2);
  CHECK(there.met());
  CHECK(back.arrived() == 2);
  CHECK(back.met());
  layer(ones({2, 1, 3}));  // without a tape
  CHECK(there.arrived() == 4);
  CHECK(there.met());
  forward_kernels = backward_kernels = nullptr;
}

TEST_CASE("gradients of ops that leave threads idle: sequential where necessary") {
  const Threads two(2);
  const Op<> op(doubling());
  const Tensor three = full({3}, 3);
  {
    Tape tape;
    const Tensor x = tape.watch(three), y = op({&x}, {}), z = op({&y}, {});
    const auto gradients = tape.gradient(sum(y + z), {x, y});
    CHECK(same_bits(gradients[0], full({3}, 6)));
    CHECK(same_bits(gradients[1], full({3}, 3)));
  }
  Tape tape;
  const Tensor x = tape.watch(three), y = op({&x}, {}), z = op({&x}, {});
  const auto of_x = [&](const Tensor& loss) { return tape.gradient(loss, {x}, {.keep = true})[0]; };
  CHECK(same_bits(of_x(sum(y + z)), full({3}, 4)));
  CHECK(same_bits(of_x(sum(z)), full({3}, 2)));
  CHECK(same_bits(of_x(sum(y)), full({3}, 2)));
  tape.on_gradient(y, [](const Tensor& g) { return 10 * g; });
  CHECK(same_bits(of_x(sum(y + z)), full({3}, 22)));
}

TEST_CASE("an exception of a concurrent kernel names its own op and place") {
  const Op<> op(doubling());
  const auto first_number = [](double x) { return full({3}, x); };
  const auto error = [&](double a, double b) {
    Tape tape;
    const Tensor x = tape.watch(first_number(a)), y = tape.watch(first_number(b));
    const std::string text = error_of<Error>([&] {
      const auto [u, v] = side_by_side([&] {
        return std::pair{op({&x}, Site("first.cpp", 1)), op({&y}, Site("second.cpp", 2))};
      });
      tape.gradient(sum(u + v), {x, y});
    });
    const Tensor z = tape.watch(first_number(1));
    CHECK(same_bits(tape.gradient(sum(op({&z}, {})), {z})[0], first_number(2)));
    return text;
  };
  for (const int n : {1, 2}) {
    const Threads some(n);
    CHECK(error(1, -1) == "doubling: no room for -1 (second.cpp:2)");
    CHECK(error(-1, 1) == "doubling: no room for -1 (first.cpp:1)");
    CHECK(error(-1, -1) == "doubling: no room for -1 (first.cpp:1)");
    CHECK(error(1, -2) ==
          "no way back from -2 (in the gradient of doubling recorded at second.cpp:2)");
    CHECK(error(-2, 1) ==
          "no way back from -2 (in the gradient of doubling recorded at first.cpp:1)");
    CHECK(error(-2, -2) ==
          "no way back from -2 (in the gradient of doubling recorded at second.cpp:2)");
  }
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

TEST_CASE("profiles and check_finite see each direction by itself") {
  const Threads two(2);
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
    CHECK(seen ==
          std::vector<std::string>{"forward of tagger.forward", "forward of tagger.backward",
                                   "backward of tagger.backward", "backward of tagger.forward"});
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
