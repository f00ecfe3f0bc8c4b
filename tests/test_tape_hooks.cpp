// What a hook may do to the tape whose backward pass calls it, and what a span for writing may.
#include <doctest/doctest.h>

#include <cmath>
#include <new>
#include <optional>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/init.h>
#include <reel/nn/linear.h>
#include <reel/nn/unroll.h>
#include <reel/optim/sgd.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;
using testing::error_of;
using testing::same_bits;

namespace {

Tensor filled_with_two(Rng&, const Shape& shape, DType dtype) { return full(shape, 2, dtype); }

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A user-defined cell: it takes no Site.
struct OwnCell {
  using State = nn::HiddenState;
  OwnCell(const Params& p, Index input_size, Index hidden_size)
      : w(p, input_size + hidden_size, hidden_size) {}
  nn::Output<State> operator()(const Tensor& x, const State& state, const nn::Mode&) const {
    const Tensor h = state.h.defined() ? state.h : zeros({x.size(0), w.w.shape()[0]}, x.dtype());
    const Tensor joined = concat({x, h}, 1);
    if (current_place.step == fails_at) last_line = __LINE__ + 1;
    const Tensor y = current_place.step == fails_at ? joined + h : tanh(w(joined));
    return {y, {y}};
  }
  Index output_size() const { return w.w.shape()[0]; }

  nn::Linear w;
  static inline int fails_at = -1, last_line = 0;
};

}  // namespace

TEST_CASE("a hook that changes the tape of its own pass is refused, and the tape is whole") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), y = square(x), loss = y * x;
  int line = 0;
  std::string expected;
  GradientHook hook;
  bool kept = false;
  SUBCASE("clear") {
    hook = [&](const Tensor& g) {
      line = __LINE__ + 1;
      tape.clear();
      return g;
    };
    expected = "clear: a backward pass over this tape is running";
  }
  SUBCASE("another hook") {
    hook = [&](const Tensor& g) {
      line = __LINE__ + 1;
      tape.on_gradient(x, [](const Tensor& h) { return h; });
      return g;
    };
    expected = "on_gradient: a backward pass over this tape is running";
  }
  SUBCASE("a gradient") {
    hook = [&](const Tensor&) {
      line = __LINE__ + 1;
      return tape.gradient(loss, {x})[0];
    };
    expected = "gradient: a backward pass over this tape is running";
  }
  SUBCASE("a gradient that keeps what the pass around it does not") {
    hook = [&](const Tensor&) {
      line = __LINE__ + 1;
      return tape.gradient(loss, {x}, {.keep = true})[0];
    };
    expected = "only where both have {.keep = true}";
  }
  SUBCASE("one that does not keep what the pass around it does") {
    kept = true;
    hook = [&](const Tensor&) {
      line = __LINE__ + 1;
      return tape.gradient(loss, {x})[0];
    };
    expected = "only where both have {.keep = true}";
  }
  SUBCASE("clear, on a tape that is kept") {
    kept = true;
    hook = [&](const Tensor& g) {
      line = __LINE__ + 1;
      tape.clear();
      return g;
    };
    expected = "clear: a backward pass over this tape is running";
  }
  tape.on_gradient(y, hook);
  const std::string message =
      error_of<GradientError>([&] { tape.gradient(loss, {x}, {.keep = kept}); });
  CHECK_MESSAGE(contains(message, expected), message);
  CHECK_MESSAGE(contains(message, Site(__FILE__, line).str()), message);
  CHECK(tape.size() == (kept ? 2 : 0));
  tape.clear();
  const Tensor z = tape.watch(scalar(2, f64));
  CHECK(tape.gradient(square(z), {z})[0].item() == 4);
}

TEST_CASE("a hook takes a gradient of its own tape where both keep it") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), y = square(x), loss = y * x;
  int calls = 0;
  double inner = 0;
  tape.on_gradient(y, [&](const Tensor& g) {
    ++calls;
    inner = tape.gradient(loss, {x}, {.keep = true})[0].item();
    return 2 * g;
  });
  CHECK(tape.gradient(loss, {x}, {.keep = true})[0].item() == 2 * 3 * 6 + 9);
  CHECK(calls == 1);
  CHECK(inner == 27);
  CHECK(tape.gradient(loss, {x}, {.create_graph = true})[0].item() == 2 * 3 * 6 + 9);
}

TEST_CASE("memory that runs out in a backward pass is a MemoryError, whoever asked for it") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), y = square(x);
  tape.on_gradient(y, [](const Tensor&) -> Tensor { throw std::bad_alloc(); });
  CHECK_THROWS_WITH_AS(tape.gradient(y, {x}), Contains("there is not enough memory (in "),
                       MemoryError);
}

TEST_CASE("an exception in a hook leaves the tape empty, or unchanged if it is kept") {
  for (const bool kept : {false, true})
    for (const bool on_variable : {false, true}) {
      Tape tape;
      const Tensor x = tape.watch(scalar(3, f64)), y = square(x), loss = y * x;
      bool armed = true;
      tape.on_gradient(on_variable ? x : y, [&](const Tensor& g) {
        if (armed) throw 42;
        return g;
      });
      CHECK_THROWS_WITH_AS(tape.gradient(loss, {x}, {.keep = kept}),
                           Contains("something was thrown that is no std::exception (in "),
                           GradientError);
      CHECK(tape.size() == (kept ? 2 : 0));
      armed = false;
      if (kept) CHECK(tape.gradient(loss, {x})[0].item() == 27);
    }
  Tape tape;
  const Tensor x = tape.watch(scalar(3));
  CHECK_THROWS_WITH_AS(tape.on_gradient(x, nullptr), Contains("on_gradient: the hook is empty"),
                       ValueError);
}

TEST_CASE("a hook may use modules and parameters that the tape has not seen") {
  const Params params(1, f64);
  const Param w = params.create("seen.w", {2}, filled_with_two);
  const Param late = params.create("late.w", {2}, filled_with_two);
  Tape tape;
  Tensor y;
  {
    const ModuleScope scope(w.name(), {});
    y = square(w);
  }
  tape.on_gradient(y, [&](const Tensor& g) {
    for (int i = 0; i < 40; ++i) {  // names short enough for the small-string optimisation
      const std::string name = "m" + std::to_string(i) + ".w";
      const ModuleScope scope(name, {});
      square(late);
    }
    return g * late;
  });
  const Gradients g = tape.gradient(sum(y), params, {.create_graph = true});
  CHECK(g["seen.w"].to_vector() == std::vector<double>{8, 8});
  CHECK(g.find(late) == nullptr);
}

TEST_CASE("places stay readable while a specification adds modules") {
  const Params params(1, f64);
  const nn::Lstm lstm(params / "a", 2, 2), other(params / "b", 2, 2);
  Tape tape({.profile = true});
  const Tensor x = tape.watch(Rng(1).normal({2, 1, 2}, 0, 1, f64));
  const Tensor loss = sum(other(lstm(x).y).y);
  const Tensor g = tape.gradient(loss, {x}, {.create_graph = true})[0];
  CHECK(tape.gradient(sum(g), params)["a.b"].size() == 8);
}

TEST_CASE("writing to a span that was kept is seen") {
  const Params params(1);
  Param w = params.create("w", {2}, filled_with_two);
  const std::span<float> numbers = w.edit<float>();
  numbers[0] = 3;
  Tape tape;
  Tensor loss = sum(square(w) * w);
  SUBCASE("between forward and backward") {
    numbers[0] = 7;
    CHECK_THROWS_WITH_AS(tape.gradient(loss, params),
                         Contains("parameter w was changed between forward and backward"),
                         StaleTensorError);
  }
  SUBCASE("and is no error once the gradient is there") {
    CHECK(tape.gradient(loss, params)["w"].to_vector() == std::vector<double>{27, 12});
    numbers[0] = 1;
    loss = sum(square(w) * w);
    CHECK(tape.gradient(loss, params)["w"].to_vector() == std::vector<double>{3, 12});
  }
  SUBCASE("nor after the value was replaced") {
    w.set(ones({2}));
    tape.clear();
    loss = sum(square(w) * w);
    CHECK(tape.gradient(loss, params)["w"].to_vector() == std::vector<double>{3, 3});
  }
}

TEST_CASE("a gradient has the numbers of the call, whoever kept a span of them") {
  Tensor x = full({2}, 2);
  const std::span<float> numbers = x.edit<float>();
  numbers[0] = 3;
  Tape tape;
  const Tensor w = tape.watch(ones({2}));
  const auto gradient = [&](const Tensor& y, const Tensor& input) {
    return tape.gradient(sum(y), {input})[0].to_vector();
  };
  using Numbers = std::vector<double>;
  SUBCASE("of a constant") {
    const Tensor y = x * w;
    numbers[0] = 7;
    CHECK(gradient(y, w) == Numbers{3, 2});
  }
  SUBCASE("of a watched tensor") {
    const Tensor watched = tape.watch(x), y = square(watched);
    numbers[0] = 7;
    CHECK(gradient(y, watched) == Numbers{6, 4});
  }
  SUBCASE("of another shape with the same memory") {
    const Tensor row = reshape(x, {1, 2}), y = row * w;
    numbers[0] = 7;
    CHECK(gradient(y, w) == Numbers{3, 2});
  }
  SUBCASE("that changed between two uses") {
    const Tensor before = x * w;
    numbers[0] = 7;
    CHECK(gradient(before + x * w, w) == Numbers{10, 4});
  }
  SUBCASE("of indices") {
    Tensor rows = full({1}, 1, i32);
    const std::span<std::int32_t> row = rows.edit<std::int32_t>();
    const Tensor y = gather_rows(reshape(w, {2, 1}), rows);
    row[0] = 0;
    CHECK(gradient(y, w) == Numbers{0, 1});
  }
  SUBCASE("used in every step, which are copied once") {
    Tensor y = w;
    for (int step = 0; step < 100; ++step) y = y * x;
    const std::int64_t held = tape.held_bytes();
    CHECK(held < 100 * 2 * 64);
    numbers[0] = 7;
    CHECK(gradient(y, w)[1] == std::exp2(100));
  }
}

TEST_CASE("a span of a tensor that became the value of a parameter") {
  const Params params(1);
  Param w = params.create("w", {2}, filled_with_two);
  Tensor x = ones({2});
  const std::span<float> numbers = x.edit<float>();
  w.set(x);
  Tape tape;
  const Tensor loss = sum(square(w));
  numbers[0] = 7;
  CHECK_THROWS_WITH_AS(tape.gradient(loss, params),
                       Contains("parameter w was changed between forward and backward"),
                       StaleTensorError);
}

TEST_CASE("an edit in the wrong type changes nothing, also not the version") {
  const Params params(1);
  Param w = params.create("w", {2}, filled_with_two);
  Tape tape;
  const Tensor loss = sum(square(w));
  CHECK_THROWS_AS(w.edit<double>(), DTypeError);
  CHECK(w.entry()->version == 0);
  CHECK(tape.gradient(loss, params)["w"].to_vector() == std::vector<double>{4, 4});
}

// Misuse does not compile: an entry is read-only.
static_assert(std::is_const_v<std::remove_reference_t<decltype(*std::declval<Param>().entry())>>);
static_assert(!std::is_assignable_v<decltype((std::declval<Param>().entry()->value)), Tensor>);

TEST_CASE("an error in a user's cell names its line, module, time step and the layer's call") {
  const Params params(1);
  const nn::Unroll<OwnCell> layer(params / "own", 2, 3);
  const Tensor x = Rng(1).normal({5, 1, 2});
  const auto message_at = [&](const SequenceOptions& options, bool taped) {
    std::optional<Tape> tape;
    if (taped) tape.emplace();
    OwnCell::fails_at = 3;
    const int line = __LINE__ + 1;
    const std::string message = error_of<ShapeError>([&] { layer(x, {}, nn::Eval{}, options); });
    OwnCell::fails_at = -1;
    const std::string ending = " (" + Site(__FILE__, OwnCell::last_line).str() +
                               ", in module own, time step 3, called at " +
                               Site(__FILE__, line).str() + ")";
    CHECK_MESSAGE(message.find(ending) != std::string::npos, message, " lacks ", ending);
  };
  message_at({}, false);
  message_at({}, true);
  message_at({.segment = 2}, false);
  message_at({.segment = 2}, true);
}

TEST_CASE("an error of an op within a module names the module, also in the backward pass") {
  const Params params(1);
  const nn::Linear head(params / "head", 3, 2);
  const int line = __LINE__ + 1;
  const std::string message = error_of<ShapeError>([&] { head(ones({2, 4})); });
  CHECK(message.ends_with(" (" + Site(__FILE__, line).str() + ", in module head)"));
  const nn::Unroll<nn::LstmCell> layer(params / "lstm", 3, 2);
  CHECK_THROWS_WITH_AS(layer(ones({2, 1, 4})), Contains(", in module lstm, time step 0)"),
                       ShapeError);
  Tape tape;
  const Tensor y = head(ones({2, 3}));
  tape.on_gradient(y, [](const Tensor&) -> Tensor { throw Error("no"); });
  CHECK_THROWS_WITH_AS(tape.gradient(sum(y), params), Contains(", in module head)"), GradientError);
}

TEST_CASE("errors of a tape name the line of the program") {
  const Params params(1);
  Param w = params.create("w", {2}, filled_with_two);
  Tape tape;
  const auto at = [](int line) { return " (" + Site(__FILE__, line).str() + ")"; };
  CHECK(error_of<GradientError>([&] { tape.gradient(ones({}), params); }).ends_with(at(__LINE__)));
  CHECK(error_of<GradientError>([&] { tape.on_gradient(ones({}), {}); }).ends_with(at(__LINE__)));
  CHECK(error_of<ShapeError>([&] { w.set(ones({3})); }).ends_with(at(__LINE__)));
  CHECK(error_of<DTypeError>([&] { tape.watch(ones({3}, i32)); }).ends_with(at(__LINE__)));
  const Tensor y = square(w);
  CHECK(error_of<GradientError>([&] { tape.gradient(y, params); }).ends_with(at(__LINE__)));
  const int line = __LINE__ + 1;
  const auto seed = error_of<ShapeError>([&] { tape.gradient(y, params, {.seed = ones({3})}); });
  CHECK(seed.ends_with(at(line)));
  CHECK(error_of<ValueError>([&] { tape.gradient(sum(y), params / "v"); }).ends_with(at(__LINE__)));
}

TEST_CASE("profiles of several tapes add up") {
  const Params params(1);
  const nn::Linear a(params / "a", 2, 2), b(params / "b", 2, 2);
  Profile total;
  std::size_t events = 0;
  for (const nn::Linear* layer : {&a, &b, &a}) {
    Tape tape({.profile = true});
    tape.gradient(sum((*layer)(ones({3, 2}))), params);
    total += tape.profile();
    events += tape.profile().events().size();
  }
  CHECK(total.events().size() == events);
  CHECK(total.modules() == std::vector<std::string>{"a", "b"});
  std::int64_t last = 0;
  int affine_of_b = 0;
  for (const Profile::Event& e : total.events()) {
    CHECK(e.begin_ns >= last);
    CHECK(e.cpu_ns >= 0);
    last = e.begin_ns;
    affine_of_b += e.op == "affine" && e.module == 1;
  }
  CHECK(affine_of_b == 2);
  total += total;
  CHECK(total.events().size() == 2 * events);
  CHECK(contains(total.str(), "cpu ms"));
}

TEST_CASE("a profile distinguishes CPU time and wall-clock time") {
  const Tensor x = ones({600, 600});
  Tape tape({.profile = true});
  const Tensor w = tape.watch(x);
  Tensor y = w;
  for (int i = 0; i < 5; ++i) y = matmul(w, x);
  std::int64_t wall = 0, cpu = 0;
  for (const Profile::Event& e : tape.profile().events()) wall += e.duration_ns, cpu += e.cpu_ns;
  CHECK(cpu > wall / 20);  // another process may run on the processor for a while
}
