// User-defined ops whose parts throw: the message names the op and the call, and tape and pool are
// unchanged.
#include <doctest/doctest.h>

#include <algorithm>
#include <new>
#include <stdexcept>

#include <reel/reel.h>

#include "testing.h"

using namespace reel;
using namespace reel::op;
using testing::error_of;

namespace {

// Which part of the op throws.
enum class Part { none, shape, kernel, kernel_value, kernel_memory, gradient, specification };
Part broken = Part::none;

void fail_in(Part part) {
  if (part != broken) return;
  if (part == Part::kernel_value) throw ValueError("the value is out of range");
  if (part == Part::kernel_memory) throw std::bad_alloc();
  throw std::runtime_error("it broke");
}

const auto shape = [](const Arguments& in) -> Shape {
  if (broken == Part::shape) in.fail("it broke");
  return in[0];
};
const auto kernel = []<Real T>(Ctx<T> c) {
  const Scratch<T> memory(c.shape(0).size());
  fail_in(Part::kernel);
  fail_in(Part::kernel_value);
  fail_in(Part::kernel_memory);
  std::ranges::transform(c.in(0), c.out().begin(), [](T x) { return 3 * x; });
};

const Op<>& rule_op() {
  static const Op<> op{{
      .name = "users_rule",
      .arguments = {"x"},
      .shape = shape,
      .forward = kernel,
      .gradient = rule(
          [](Vjp& v) {
            const Tensor g = 3 * v.g();
            fail_in(Part::gradient);
            v.add(0, [&] { return g; });
          },
          keeps_nothing),
      .samples = {normal({3})},
  }};
  return op;
}

const Op<>& fused_op() {
  static const Op<> op{{
      .name = "users_fused",
      .arguments = {"x"},
      .shape = shape,
      .forward = kernel,
      .gradient = fused(
          []<Real T>(BackwardCtx<T> c) {
            const Index size = c.shape(0).size();
            const Scratch<T> memory(size);
            fail_in(Part::gradient);
            std::transform(c.g(), c.g() + size, c.grad(0), [](T g) { return 3 * g; });
          },
          [](std::span<const Tensor> in) {
            const Tensor y = 3 * in[0];
            fail_in(Part::specification);
            return Tensors{y};
          }),
      .samples = {normal({3})},
  }};
  return op;
}

struct Breaks {
  explicit Breaks(Part part) { broken = part; }
  ~Breaks() { broken = Part::none; }
};

// Checks the op and its gradient on this tape when nothing throws.
void check_works(Tape& tape, const Op<>& op) {
  const Tensor x = tape.watch(tensor({3}, {1, 2, 3}));
  const Tensor y = op({&x}, {});
  CHECK(y.to_vector() == std::vector<double>{3, 6, 9});
  CHECK(tape.gradient(sum(y), {x})[0].to_vector() == std::vector<double>{3, 3, 3});
}

// Calls f, which throws inside, often enough to see whether memory is lost.
template <class F>
void check_no_memory_is_lost(F f) {
  f();
  const std::size_t before = pool::statistics().heap_allocations;
  for (int i = 0; i < 10; ++i) f();
  CHECK(pool::statistics().heap_allocations == before);
}

}  // namespace

TEST_CASE("a user's op that throws in the forward pass has had no effect") {
  for (const Op<>* op : {&rule_op(), &fused_op()}) {
    const std::string name(op->spec().name);
    CAPTURE(name);
    Tape tape;
    const Tensor x = tape.watch(tensor({3}, {1, 2, 3}));
    const Tensor before = square(x);
    const Site site("users.cpp", 5);
    const auto call = [&] { (*op)({&x}, site); };
    {
      const Breaks part(Part::shape);
      CHECK(error_of<ShapeError>(call) == name + ": it broke; x is f32 [3] (users.cpp:5)");
    }
    {
      const Breaks part(Part::kernel);
      CHECK(error_of<Error>(call) == name + ": it broke (users.cpp:5)");
      check_no_memory_is_lost([&] { CHECK_THROWS_AS(call(), Error); });
    }
    {
      const Breaks part(Part::kernel_value);
      CHECK(error_of<ValueError>(call) == name + ": the value is out of range (users.cpp:5)");
    }
    {
      const Breaks part(Part::kernel_memory);
      CHECK(error_of<MemoryError>(call) == name + ": there is not enough memory (users.cpp:5)");
    }
    CHECK(tape.size() == 1);
    CHECK(Tape::current() == &tape);
    CHECK(tape.gradient(sum(before), {x}, {.keep = true})[0].to_vector() ==
          std::vector<double>{2, 4, 6});
    check_works(tape, *op);
  }
}

TEST_CASE("a user's gradient that throws says where the op was called and leaves the tape usable") {
  for (const Op<>* op : {&rule_op(), &fused_op()}) {
    const std::string name(op->spec().name);
    CAPTURE(name);
    Tape tape;
    const auto fail = [&](const GradientOptions& options) {
      tape.clear();
      const Tensor x = tape.watch(tensor({3}, {1, 2, 3}));
      const Tensor y = sum(square((*op)({&x}, Site("users.cpp", 9))));
      tape.gradient(y, {x}, options);
    };
    const std::string message =
        "it broke (in the gradient of " + name + " recorded at users.cpp:9)";
    {
      const Breaks part(Part::gradient);
      CHECK(error_of<GradientError>([&] { fail({}); }) == message);
      CHECK(tape.size() == 0);
      CHECK(Tape::current() == &tape);
      check_no_memory_is_lost([&] { CHECK_THROWS_AS(fail({}), GradientError); });
    }
    check_works(tape, *op);
    if (op == &fused_op()) {
      const Breaks part(Part::specification);
      CHECK(error_of<GradientError>([&] { fail({.create_graph = true}); }) == message);
      CHECK(Tape::current() == &tape);
      check_no_memory_is_lost(
          [&] { CHECK_THROWS_AS(fail({.create_graph = true}), GradientError); });
    }
    check_works(tape, *op);
  }
}

TEST_CASE("a gradient that throws on a kept tape can be taken once it no longer does") {
  Tape tape;
  const Tensor x = tape.watch(tensor({3}, {1, 2, 3}));
  const Tensor y = sum(square(fused_op()({&x}, Site("users.cpp", 9))));
  {
    const Breaks part(Part::gradient);
    CHECK_THROWS_AS(tape.gradient(y, {x}, {.keep = true}), GradientError);
  }
  CHECK(tape.gradient(y, {x})[0].to_vector() == std::vector<double>{18, 36, 54});
}
