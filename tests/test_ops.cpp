#include <doctest/doctest.h>

#include <algorithm>

#include <reel/autograd/check/op_checks.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/threads.h>

#include "complaints.h"
#include "references.h"
#include "testing.h"

using namespace reel;
using namespace reel::op;
using testing::complains;
using testing::lines;

namespace {

constexpr auto multiply = []<class T>(Ctx<T> c) {
  for (std::size_t i = 0; i < c.out().size(); ++i) c.out()[i] = c.in(0)[i] * c.in(1)[i];
};
constexpr auto twice = []<class T>(Ctx<T> c) {
  for (std::size_t i = 0; i < c.out().size(); ++i) c.out()[i] = c.in(0)[i] + c.in(0)[i];
};
constexpr auto equal_shapes = [](const Arguments& in) -> Shape {
  for (int i = 1; i < in.count(); ++i)
    if (in[i] != in[0]) in.fail("the shapes differ");
  return in[0];
};
const auto pair = with_inputs(normal({3, 4}), normal({3, 4}));

const auto twice_rule = rule([](Vjp& v) { v.add(0, [&] { return 2 * v.g(); }); }, keeps_nothing);

// The address sanitizer makes checks take ten times as long. An op that runs many cells has three
// samples of each, so every fourth are all kinds of samples, of most of the cells.
OpSpec thinned(const OpSpec& op) {
  OpSpec some = op;
  if (!testing::sanitized || op.samples.size() <= 20) return some;
  some.samples.clear();
  for (std::size_t s = 0; s < op.samples.size(); s += 4) some.samples.push_back(op.samples[s]);
  return some;
}

}  // namespace

TEST_CASE("every op of the registry passes every check") {
  for (const OpSpec* op : registry()) {
    CHECK_MESSAGE(testing::reference_of(*op), op->name << " has no reference");
    const Complaints complaints = check_op(thinned(*op), testing::reference_of(*op));
    CHECK_MESSAGE(complaints.empty(), lines(complaints));
  }
}

TEST_CASE("a wrong gradient is caught") {
  SUBCASE("sign") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   equal_shapes,
                   multiply,
                   rule(
                       [](Vjp& v) {
                         v.add(0, [&] { return v.g() * v.in(1); });
                         v.add(1, [&] { return -(v.g() * v.in(0)); });
                       },
                       keeps_inputs),
                   {pair}}};
    CHECK(complains(check_derivatives(op.spec()), "WRONG"));
    CHECK(complains(check_jacobian(op.spec()), "d output 0 / d b[0]"));
  }
  SUBCASE("missing term") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   equal_shapes,
                   multiply,
                   rule([](Vjp& v) { v.add(0, [&] { return v.g() * v.in(1); }); }, keeps_inputs),
                   {pair}}};
    CHECK(complains(check_derivatives(op.spec()), "WRONG"));
    CHECK(complains(check_jacobian(op.spec()), "is 0, not"));
  }
  SUBCASE("missing broadcast sum") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   broadcast_shape,
                   []<class T>(Ctx<T> c) {
                     for (std::size_t i = 0; i < c.out().size(); ++i)
                       c.out()[i] = c.in(0)[i] + c.in(1)[i % c.in(1).size()];
                   },
                   rule(
                       [](Vjp& v) {
                         v.add(0, [&] { return v.g(); });
                         v.add(1, [&] { return select(v.g(), 0, 0); });
                       },
                       keeps_nothing),
                   {with_inputs(normal({3, 4}), normal({4}))}}};
    CHECK(complains(check_derivatives(op.spec()), "WRONG"));
  }
  SUBCASE("gradient of the gradient") {
    const Op<> op{
        {"wrong",
         {"x"},
         same_shape,
         []<class T>(Ctx<T> c) {
           for (std::size_t i = 0; i < c.out().size(); ++i) c.out()[i] = c.in(0)[i] * c.in(0)[i];
         },
         rule([](Vjp& v) { v.add(0, [&] { return 2 * v.g() * v.in().detach(); }); }, keeps_inputs),
         {normal({5})}}};
    CHECK(check_jacobian(op.spec()).empty());
    CHECK(complains(check_derivatives(op.spec()), "x0     [5]        2  WRONG"));
  }
}

TEST_CASE("a gradient that depends on which others are wanted is caught") {
  const Op<> op{{"wrong",
                 {"a", "b"},
                 equal_shapes,
                 multiply,
                 rule(
                     [](Vjp& v) {
                       v.add(0, [&] { return v.g() * v.in(1); });
                       if (v.needs(0)) v.add(1, [&] { return v.g() * v.in(0); });
                     },
                     keeps_inputs),
                 {pair}}};
  CHECK(check_jacobian(op.spec()).size() > 0);
  CHECK(complains(check_inputs_alone(op.spec()), "gradient of b differs"));
}

TEST_CASE("a gradient that misses one of two uses of a tensor is caught") {
  const Op<> op{{"wrong",
                 {"a", "b"},
                 equal_shapes,
                 multiply,
                 fused(
                     []<Real T>(BackwardCtx<T> c) {
                       for (Index i = 0; i < c.shape(0).size(); ++i) {
                         if (c.grad(0)) c.grad(0)[i] = c.g()[i] * c.in(1)[i];
                         if (c.grad(1))
                           c.grad(1)[i] = c.in(0) == c.in(1) ? 0 : c.g()[i] * c.in(0)[i];
                       }
                     },
                     [](std::span<const Tensor> in) -> Tensors { return {in[0] * in[1]}; }),
                 {pair}}};
  CHECK(check_derivatives(op.spec()).empty());
  CHECK(check_specification(op.spec()).empty());
  CHECK(complains(check_repeated_tensor(op.spec()), "not the sum"));
}

TEST_CASE("an op that changes its input is caught") {
  SUBCASE("forward") {
    const Op<> op{{"wrong",
                   {"x"},
                   same_shape,
                   []<class T>(Ctx<T> c) {
                     for (std::size_t i = 0; i < c.out().size(); ++i) {
                       c.out()[i] = c.in(0)[i] + c.in(0)[i];
                       const_cast<T&>(c.in(0)[i]) = 0;
                     }
                   },
                   twice_rule,
                   {normal({3})}}};
    CHECK(complains(check_inputs_unchanged(op.spec()), "forward pass changes"));
  }
  SUBCASE("backward") {
    const Op<> op{{"wrong",
                   {"x"},
                   same_shape,
                   twice,
                   fused(
                       []<Real T>(BackwardCtx<T> c) {
                         for (Index i = 0; i < c.shape(0).size(); ++i) {
                           c.grad(0)[i] = 2 * c.g()[i];
                           const_cast<T*>(c.in(0))[i] = 0;
                         }
                       },
                       [](std::span<const Tensor> in) -> Tensors { return {2 * in[0]}; }),
                   {normal({3})}}};
    CHECK(complains(check_inputs_unchanged(op.spec()), "backward pass changes"));
  }
}

TEST_CASE("different bits in another run are caught") {
  SUBCASE("by the run") {
    const Op<> op{{"wrong",
                   {"x"},
                   same_shape,
                   []<class T>(Ctx<T> c) {
                     static int runs = 0;
                     std::ranges::fill(c.out(), static_cast<T>(++runs));
                   },
                   twice_rule,
                   {normal({3})}}};
    CHECK(complains(check_same_bits(op.spec()), "other values in a second run"));
    CHECK(complains(check_derivatives(op.spec()), "not deterministic"));
  }
  SUBCASE("by the number of threads") {
    const Op<> op{{"wrong",
                   {"x"},
                   same_shape,
                   []<class T>(Ctx<T> c) { std::ranges::fill(c.out(), static_cast<T>(threads())); },
                   twice_rule,
                   {normal({3})}}};
    CHECK(complains(check_same_bits(op.spec()), "other values with another number of threads"));
  }
  SUBCASE("by whether a tape records") {
    const Op<> op{
        {"wrong",
         {"x"},
         same_shape,
         []<class T>(Ctx<T> c) { std::ranges::fill(c.out(), static_cast<T>(c.recording())); },
         twice_rule,
         {normal({3})}}};
    CHECK(complains(check_same_bits(op.spec()), "other values while recording"));
  }
}

TEST_CASE("reading a value that was not declared is caught") {
  SUBCASE("rule, input") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   equal_shapes,
                   multiply,
                   rule(
                       [](Vjp& v) {
                         v.add(0, [&] { return v.g() * v.in(1); });
                         v.add(1, [&] { return v.g() * v.in(0); });
                       },
                       Keeps::input(1)),
                   {pair}}};
    CHECK(complains(check_kept_values(op.spec()),
                    "the gradient reads input 0, which the op does not declare to keep"));
  }
  SUBCASE("rule, output") {
    const Op<> op{{"wrong",
                   {"x"},
                   same_shape,
                   twice,
                   rule([](Vjp& v) { v.add(0, [&] { return v.g() + v.out(); }); }, keeps_inputs),
                   {normal({3})}}};
    CHECK(complains(check_kept_values(op.spec()), "the gradient reads output 0"));
  }
  SUBCASE("fused") {
    const Op<> op{
        {"wrong",
         {"x"},
         same_shape,
         twice,
         fused(
             []<Real T>(BackwardCtx<T> c) {
               for (Index i = 0; i < c.shape(0).size(); ++i) c.grad(0)[i] = c.out()[i] * c.g()[i];
             },
             [](std::span<const Tensor> in) -> Tensors { return {2 * in[0]}; }, keeps_inputs),
         {normal({3})}}};
    CHECK(complains(check_kept_values(op.spec()), "the gradient reads output 0"));
  }
}

TEST_CASE("imprecise kernels are caught") {
  const Op<> op{{"wrong",
                 {"x"},
                 same_shape,
                 []<class T>(Ctx<T> c) {
                   const T error = std::is_same_v<T, double> ? T(0) : static_cast<T>(1.001);
                   for (std::size_t i = 0; i < c.out().size(); ++i)
                     c.out()[i] = c.in(0)[i] + c.in(0)[i] + error;
                 },
                 twice_rule,
                 {normal({3})}}};
  CHECK(complains(check_precision(op.spec()), "f32 differs from f64"));
  CHECK(complains(check_precision(op.spec()), "i32 differs from f64"));
}

TEST_CASE("bad handling of bad arguments is caught") {
  SUBCASE("any shape goes") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   same_shape,
                   twice,
                   rule([](Vjp& v) { v.add(0, [&] { return 2 * v.g(); }); }, keeps_nothing),
                   {pair}}};
    CHECK(complains(check_bad_arguments(op.spec()), "takes all shapes"));
  }
  SUBCASE("an error that names nothing") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   [](const Arguments& in) -> Shape {
                     if (in[0] != in[1]) throw ShapeError("bad shapes");
                     return in[0];
                   },
                   multiply,
                   rule([](Vjp& v) { v.add(0, [&] { return v.g() * v.in(1); }); }, keeps_inputs),
                   {pair}}};
    const Complaints complaints = check_bad_arguments(op.spec());
    CHECK(complains(complaints, "does not name wrong: bad shapes"));
    CHECK(complains(complaints, "does not name a is f64 [4, 4]: bad shapes"));
    CHECK(complains(complaints, "does not name caller.cpp:7: bad shapes"));
  }
  SUBCASE("an error of another type") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   [](const Arguments& in) -> Shape {
                     if (in[0] != in[1]) throw std::logic_error("what?");
                     return in[0];
                   },
                   multiply,
                   rule([](Vjp& v) { v.add(0, [&] { return v.g() * v.in(1); }); }, keeps_inputs),
                   {pair}}};
    CHECK(complains(check_bad_arguments(op.spec()), "an error of the wrong type: what?"));
  }
}

TEST_CASE("a kernel that is not what its specification says is caught") {
  const auto backward = []<Real T>(BackwardCtx<T> c) {
    for (Index i = 0; i < c.shape(0).size(); ++i) c.grad(0)[i] = 2 * c.g()[i];
  };
  SUBCASE("values") {
    const Op<> op{
        {"wrong",
         {"x"},
         same_shape,
         twice,
         fused(backward, [](std::span<const Tensor> in) -> Tensors { return {2 * in[0] + 1e-9}; }),
         {normal({3})}}};
    CHECK(complains(check_specification(op.spec()), "output 0 differs from the specification"));
  }
  SUBCASE("gradients") {
    const Op<> op{
        {"wrong",
         {"x"},
         same_shape,
         twice,
         fused(backward,
               [](std::span<const Tensor> in) -> Tensors { return {in[0] + in[0].detach()}; }),
         {normal({3})}}};
    CHECK(complains(check_specification(op.spec()), "gradient 0 of output 0 differs"));
  }
}

TEST_CASE("an op of several outputs is checked output by output") {
  // a, 2a and 3b: the specification's outputs do not all depend on each input.
  const auto shapes = [](const Arguments& in) -> Shapes { return {in[0], in[0], in[1]}; };
  const auto forward = []<Real T>(Ctx<T> c) {
    for (std::size_t i = 0; i < c.in(0).size(); ++i) {
      c.out(0)[i] = c.in(0)[i];
      c.out(1)[i] = 2 * c.in(0)[i];
    }
    for (std::size_t i = 0; i < c.in(1).size(); ++i) c.out(2)[i] = 3 * c.in(1)[i];
  };
  const auto specification = [](std::span<const Tensor> in) -> Tensors {
    return {in[0], 2 * in[0], 3 * in[1]};
  };
  const auto samples = with_inputs(normal({3}), normal({2, 2}));
  SUBCASE("right") {
    const Op<> op{{"right",
                   {"a", "b"},
                   shapes,
                   forward,
                   fused(
                       []<Real T>(BackwardCtx<T> c) {
                         for (Index i = 0; c.grad(0) && i < c.shape(0).size(); ++i)
                           c.grad(0)[i] = (c.g(0) ? c.g(0)[i] : 0) + (c.g(1) ? 2 * c.g(1)[i] : 0);
                         for (Index i = 0; c.grad(1) && i < c.shape(1).size(); ++i)
                           c.grad(1)[i] = c.g(2) ? 3 * c.g(2)[i] : 0;
                       },
                       specification),
                   {samples}}};
    for (const Check& check : all_checks) {
      if (check.run == check_bad_arguments) continue;  // a and b are independent
      CHECK_MESSAGE(check(op.spec()).empty(), lines(check(op.spec())));
    }
  }
  SUBCASE("a gradient of one output is forgotten") {
    const Op<> op{{"wrong",
                   {"a", "b"},
                   shapes,
                   forward,
                   fused(
                       []<Real T>(BackwardCtx<T> c) {
                         for (Index i = 0; c.grad(0) && i < c.shape(0).size(); ++i)
                           c.grad(0)[i] = c.g(0) ? c.g(0)[i] : 0;
                         for (Index i = 0; c.grad(1) && i < c.shape(1).size(); ++i)
                           c.grad(1)[i] = c.g(2) ? 3 * c.g(2)[i] : 0;
                       },
                       specification),
                   {samples}}};
    CHECK(complains(check_specification(op.spec()), "gradient 0 of output 1 differs"));
    CHECK(complains(check_derivatives(op.spec()), "WRONG"));
  }
}

TEST_CASE("an op without gradient says why") {
  const auto define = [](const char* name, const char* why) {
    return Definition<>{name, {"x"}, same_shape, twice, none(why), {normal({3})}};
  };
  const Op<> silent{define("silent", "")};
  CHECK(complains(check_none(silent.spec()), "does not say why"));
  const Op<> op{define("steps", "it is a staircase")};
  CHECK(check_none(op.spec()).empty());

  Tape tape;
  const Tensor x = tape.watch(ones({3}));
  const Tensor y = sum(op({&x}, {}));
  CHECK_THROWS_WITH_AS(
      tape.gradient(y, {x}),
      doctest::Contains("gradient: steps has no gradient: it is a staircase (recorded at "),
      GradientError);
  CHECK(tape.size() == 2);  // rejected before anything was released
  CHECK(tape.gradient(y, {y})[0].item() == 1);
}

TEST_CASE("an op without samples is caught") {
  const Op<> op{{"wrong", {"x"}, same_shape, twice, twice_rule, {}}};
  CHECK(complains(check_derivatives(op.spec()), "there are no samples"));
}
