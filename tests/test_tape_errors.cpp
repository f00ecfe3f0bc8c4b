#include <doctest/doctest.h>

#include <algorithm>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

#include "testing.h"

using namespace reel;
using namespace reel::op;
using doctest::Contains;
using testing::error_of;

namespace {

Tensor filled_with_two(Rng&, const Shape& shape, DType dtype) { return full(shape, 2, dtype); }

// The end of an error message that names a line of this file.
std::string at(int line) { return " (" + Site(__FILE__, line).str() + ")"; }

// A function of another library: its errors should name its caller.
Tensor layer(const Tensor& x, Site site = {}) {
  const SiteScope scope(site);
  return matmul(square(x), x) + tensor({5}, {1, 2, 3, 4, 5});
}

}  // namespace

TEST_CASE("an error names the user's line") {
  const Tensor a = zeros({2, 2}), b = zeros({3});
  const std::string what =
      "add: shapes [2, 2] and [3] do not broadcast: sizes 2 and 3 differ and "
      "neither is 1; a is f32 [2, 2], b is f32 [3]";
  CHECK(error_of<ShapeError>([&] { add(a, b); }) == what + at(__LINE__));
  CHECK(error_of<ShapeError>([&] { a + b; }) == what + at(__LINE__));
  CHECK(error_of<ShapeError>([&] { layer(a); }).ends_with(at(__LINE__)));
  CHECK(error_of<ShapeError>([&] { mean(a, 7); }).ends_with(at(__LINE__)));
  CHECK(error_of<ShapeError>([&] { 2 * a + b; }).ends_with(at(__LINE__)));
  CHECK(error_of<ShapeError>([&] { matmul(a, b); }).ends_with(at(__LINE__)));
  CHECK(error_of<ShapeError>([&] { concat({a, b}, 0); }).ends_with(at(__LINE__)));
  CHECK(error_of<DTypeError>([&] { a + a.to(f64); }).ends_with(at(__LINE__)));
  CHECK(error_of<ValueError>([&] { a + Tensor(); }).ends_with(at(__LINE__)));
  CHECK(error_of<ShapeError>([&] { reshape(a, {3, -1}); }).ends_with(at(__LINE__)));
  // The layer's scope has ended after its error.
  CHECK(error_of<ShapeError>([&] { add(a, b); }) == what + at(__LINE__));
}

TEST_CASE("the message of an error can be had without the line") {
  const auto message = [](auto call) { return testing::message_without_line<Error>(call); };
  CHECK(message([] { scalar(1).size(3); }) ==
        "size: axis 3 is out of range for a tensor of rank 0, which has no axes");
  CHECK(message([] { Shape{-1}; }) == "shape [-1]: a size must not be negative");
  CHECK(message([] {
          matmul(zeros({2, 3, 4}), zeros({3, 4, 5}));
        }) ==
        "matmul: leading axes: shapes [2] and [3] do not broadcast: sizes 2 and 3 differ and "
        "neither is 1; a is f32 [2, 3, 4], b is f32 [3, 4, 5]");
  CHECK(message([] { throw ValueError("of a user (of what)"); }) == "of a user (of what)");
}

TEST_CASE("an error names op, arguments and shapes") {
  const Tensor a = zeros({2, 2}), b = zeros({3});
  CHECK_THROWS_WITH_AS(concat({a, b}, 0),
                       Contains("concat: shapes must agree on all axes but 0; inputs[0] is f32 [2, "
                                "2], inputs[1] is f32 [3] ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(mul(a, a.to(f64)),
                       Contains("mul: the arguments differ in dtype; convert one with to(); a is "
                                "f32 [2, 2], b is f64 [2, 2] ("),
                       DTypeError);
  CHECK_THROWS_WITH_AS(tanh(a.to(i32)), Contains("tanh: it does not take i32; x is i32 [2, 2] ("),
                       DTypeError);
  CHECK_THROWS_WITH_AS(
      gather_rows(a, b),
      Contains("gather_rows: rows must be i32; table is f32 [2, 2], rows is f32 [3] ("),
      DTypeError);
  CHECK_THROWS_WITH_AS(add(a, Tensor()),
                       Contains("add: b is undefined: it was never given a value ("), ValueError);
}

TEST_CASE("the product says what does not fit") {
  const Tensor a = zeros({2, 3}), v = zeros({3}), t = zeros({2, 2, 3});
  CHECK_THROWS_WITH_AS(matmul(a, a),
                       Contains("matmul: the inner sizes 3 of a and 2 of b differ; a is f32 "
                                "[2, 3], b is f32 [2, 3] ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(matmul(a, a, true, true),
                       Contains("2 of a transposed and 3 of b transposed"), ShapeError);
  CHECK_THROWS_WITH_AS(matmul(a, v), Contains("matmul: both must be matrices"), ShapeError);
  CHECK_THROWS_WITH_AS(matmul(t, a),
                       Contains("the inner sizes 3 of a and 2 of b differ; a is f32 [2, 2, 3]"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(matmul(zeros({3, 2, 3}), zeros({2, 3, 1})),
                       Contains("matmul: leading axes: "), ShapeError);
  CHECK_THROWS_WITH_AS(affine(t, zeros({4, 2}), zeros({4})),
                       Contains("affine: x has 3 features, but w takes 2"), ShapeError);
  CHECK_THROWS_WITH_AS(affine(t, zeros({4, 3}), zeros({3})),
                       Contains("affine: w gives 4 features, but b has 3"), ShapeError);
}

TEST_CASE("a tensor of an earlier tape is stale") {
  Tensor state;
  {
    Tape tape;
    state = square(tape.watch(scalar(3, f64)));
  }
  CHECK(square(state).item() == 81);  // without recording it is a plain value
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64));
  const std::string what =
      "mul: b was recorded on another tape or before this one was used up; detach() carries its "
      "value across windows";
  CHECK(error_of<StaleTensorError>([&] { mul(x, state); }) == what + at(__LINE__));
  CHECK(error_of<StaleTensorError>([&] { layer(state); }).ends_with(at(__LINE__)));
  CHECK(tape.size() == 0);
  CHECK(tape.gradient(x * state.detach(), {x})[0].item() == 9);
  CHECK(square(x).item() == 9);  // used up by that gradient: a plain value
  const int line = __LINE__ + 1;
  const std::string used_up = error_of<StaleTensorError>([&] { tape.gradient(state, {x}); });
  CHECK(used_up ==
        "gradient: the output was recorded on another tape, or this tape was used up by an earlier "
        "gradient; pass {.keep = true} to take several" +
            at(line));
}

TEST_CASE("a cleared tape has forgotten") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), y = square(x);
  tape.clear();
  CHECK(tape.size() == 0);
  CHECK_THROWS_AS(square(y), StaleTensorError);
  CHECK_THROWS_AS(tape.gradient(y, {x}), StaleTensorError);
}

TEST_CASE("a second gradient needs a kept tape") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), y = square(x);
  tape.gradient(y, {x});
  CHECK_THROWS_WITH_AS(tape.gradient(y, {x}), Contains("pass {.keep = true} to take several"),
                       StaleTensorError);
}

TEST_CASE("what is not recorded has no gradient") {
  Tape tape;
  const Tensor x = tape.watch(scalar(3, f64)), y = square(x);
  const std::string what =
      " was not recorded on this tape; watch() the inputs that it depends on, or use parameters, "
      "while the tape is current; detach() and to() give constants";
  CHECK(error_of<GradientError>([&] {
          tape.gradient(scalar(1, f64), {x});
        }).starts_with("gradient: the output" + what + " ("));
  CHECK(error_of<GradientError>([&] {
          tape.gradient(y, {scalar(1, f64)});
        }).starts_with("gradient: an input" + what + " ("));
  CHECK(error_of<GradientError>([&] {
          tape.gradient(scalar(1), Params());
        }).starts_with("gradient: the loss" + what + " ("));
  CHECK_THROWS_WITH_AS(tape.gradient(x > 0, {x}),
                       Contains("gradient: the output is i32, and integers have no gradient ("),
                       GradientError);
  CHECK_THROWS_WITH_AS(
      tape.watch(scalar(1, i32)),
      Contains("Tape::watch: integers have no gradient; watch an f32 or f64 tensor ("), DTypeError);
  CHECK_THROWS_WITH_AS(tape.watch(Tensor()), Contains("Tape::watch: the tensor is undefined"),
                       ValueError);
  CHECK(tape.gradient(y, {x})[0].item() == 6);  // nothing was lost
}

TEST_CASE("the output must be one number, or have a seed of its shape and dtype") {
  Tape tape;
  const Tensor x = tape.watch(zeros({2, 3}, f64)), y = square(x);
  CHECK_THROWS_WITH_AS(
      tape.gradient(y, {x}),
      Contains("gradient: the output has shape [2, 3], not a single number; reduce it with sum() "
               "or mean(), or pass a seed of that shape ("),
      GradientError);
  CHECK_THROWS_WITH_AS(tape.gradient(y, {x}, {.seed = ones({3}, f64)}),
                       Contains("gradient: the seed is f64 [3], but the output is f64 [2, 3] ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(tape.gradient(y, {x}, {.seed = ones({2, 3})}),
                       Contains("gradient: the seed is f32 [2, 3], but the output is f64 [2, 3] ("),
                       ShapeError);
  CHECK(tape.size() == 1);
  CHECK(tape.gradient(y, {x}, {.seed = ones({2, 3}, f64)}).size() == 1);
}

TEST_CASE("what was never given a value has no gradient") {
  Tape tape;
  const Tensor x = tape.watch(ones({2}));
  CHECK_THROWS_WITH_AS(tape.gradient(Tensor(), {x}),
                       Contains("gradient: the output is undefined (" __FILE__ ":"), ValueError);
  CHECK_THROWS_WITH_AS(tape.gradient(sum(x), {Tensor()}), Contains("an input is undefined ("),
                       ValueError);
}

TEST_CASE("memory that runs out in a backward pass is a MemoryError") {
  for (const bool of_system : {true, false}) {
    Tape tape;
    const Tensor x = tape.watch(ones({2}));
    const Tensor y = square(x);
    tape.on_gradient(y, [&](const Tensor& g) {
      if (of_system) throw std::bad_alloc();
      return g + full({Index{1} << 50}, 1);
    });
    CHECK(error_of<MemoryError>([&] {
            tape.gradient(sum(y), {x});
          }).find(of_system ? "not enough memory (" : "1125899906842624") != std::string::npos);
  }
}

TEST_CASE("a parameter that changed between forward and backward is an error") {
  const Params params(1);
  Param w = params.create("layer.w", {2}, filled_with_two);
  Tape tape;
  const Tensor loss = sum(square(w));
  w.edit<float>()[0] = 7;
  CHECK_THROWS_WITH_AS(
      tape.gradient(loss, params),
      Contains("gradient: parameter layer.w was changed between forward and backward; take the "
               "gradient before the optimizer's step ("),
      StaleTensorError);
  CHECK_THROWS_WITH_AS(
      square(w),
      "parameter layer.w was changed after this tape recorded a use of it; take the "
      "gradient first, or start a new tape",
      StaleTensorError);
  tape.clear();
  CHECK(tape.gradient(sum(square(w)), params)["layer.w"].to_vector() == std::vector<double>{14, 4});
  w.set(zeros({2}));
  CHECK(tape.gradient(sum(w.tensor()), params)["layer.w"].at({0}) == 1);
}

TEST_CASE(
    "an error in the backward pass says where the op was recorded, and leaves an empty tape") {
  const Op<> op{
      {"broken",
       {"x"},
       same_shape,
       []<class T>(Ctx<T> c) { std::ranges::copy(c.in(0), c.out().data()); },
       rule([](Vjp& v) { v.add(0, [&] { return reshape(v.g(), Shape{7}); }); }, keeps_nothing),
       {normal({3})}}};
  Tape tape;
  const Tensor x = tape.watch(zeros({3}));
  const int line = __LINE__ + 1;
  const Tensor y = sum(square(op({&x}, {})));
  const std::string place = Site(__FILE__, line).str();
  CHECK(error_of<GradientError>([&] { tape.gradient(y, {x}); }) ==
        "reshape: 3 elements cannot take shape [7]; x is f32 [3] (" + place +
            ") (in the gradient of broken recorded at " + place + ")");
  CHECK(tape.size() == 0);
  CHECK_THROWS_AS(square(y), StaleTensorError);
  CHECK(error_of<ShapeError>([&] { reshape(zeros({2}), {3}); }).ends_with(at(__LINE__)));
}

TEST_CASE("a call with bad arguments records nothing and moves no generator") {
  Tape tape;
  const Tensor x = tape.watch(zeros({2, 3}));
  Rng rng(1);
  CHECK_THROWS_AS(matmul(x, x), ShapeError);
  CHECK_THROWS_AS(gather_rows(x, tensor({1}, {5}, i32)), ValueError);
  CHECK_THROWS_AS(dropout(x, -1, rng), ValueError);
  CHECK_THROWS_AS(add(x, Tensor()), ValueError);
  CHECK(tape.size() == 0);
  CHECK(rng.state() == Rng(1).state());
}
