// Optional arguments: what an absent one costs, and that every part of the engine leaves it out.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include <reel/autograd/check/op_checks.h>
#include <reel/autograd/checkpoint.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

#include "complaints.h"
#include "testing.h"

using namespace reel;
using namespace reel::op;
using doctest::Contains;
using testing::complains;
using testing::error_of;
using testing::lines;
using testing::same_bits;
using Numbers = std::vector<double>;

namespace {

// y = a x + b, element by element, where absent a are 1 and absent b are 0, and rows from `length`
// on are 0 if there is a length.
enum Input { A, X, B, LENGTH };

constexpr auto shape = [](const Arguments& in) -> Shape {
  for (const int i : {A, B})
    if (in.has(i) && in[i] != in[X]) in.fail("a and b must have the shape of x");
  if (in.has(LENGTH) && in[LENGTH] != Shape{1}) in.fail("the length must be one number");
  return in[X];
};

template <class T>
Index counted(const T& c) {
  const Index size = c.shape(X).size();
  return c.has(LENGTH) ? std::min<Index>(size, c.indices(LENGTH)[0]) : size;
}

constexpr auto forward = []<Real T>(Ctx<T> c) {
  CHECK(c.in(A).empty() == (!c.has(A) || c.shape(X).size() == 0));
  if (!c.has(LENGTH)) CHECK(c.indices(LENGTH).empty());
  for (Index i = 0; i < c.shape(X).size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    const T y = (c.has(A) ? c.in(A)[at] : T(1)) * c.in(X)[at] + (c.has(B) ? c.in(B)[at] : T(0));
    c.out()[at] = i < counted(c) ? y : T(0);
  }
};

constexpr auto backward = []<Real T>(BackwardCtx<T> c) {
  if (!c.has(B)) CHECK(c.grad(B) == nullptr);
  if (!c.has(A)) CHECK(c.in(A) == nullptr);
  CHECK((c.indices(LENGTH) != nullptr) == c.has(LENGTH));
  for (Index i = 0; i < c.shape(X).size(); ++i) {
    const T g = i < counted(c) ? c.g()[i] : T(0);
    if (c.grad(A)) c.grad(A)[i] = g * c.in(X)[i];
    if (c.grad(X)) c.grad(X)[i] = c.has(A) ? g * c.in(A)[i] : g;
    if (c.grad(B)) c.grad(B)[i] = g;
  }
};

Tensor mask(const Tensor& length, const Shape& shape, DType dtype) {
  const Tensor places = reshape(arange(shape.size()), shape);
  return where(less(places, length), ones(shape, dtype), zeros(shape, dtype));
}

constexpr auto specification = [](std::span<const Tensor> in) -> Tensors {
  Tensor y = in[A].defined() ? in[A] * in[X] : in[X] + 0;
  if (in[B].defined()) y = y + in[B];
  if (in[LENGTH].defined()) y = y * mask(in[LENGTH], y.shape(), y.dtype());
  return {y};
};

constexpr auto line_rule = [](Vjp& v) {
  const Tensor length = v.in(LENGTH);
  CHECK(length.defined() == v.has(LENGTH));
  const Tensor g = v.has(LENGTH) ? v.g() * mask(length, v.shape(X), v.g().dtype()) : v.g();
  if (!v.has(A)) {
    CHECK_FALSE(v.needs(A));
    CHECK_FALSE(v.in(A).defined());
    CHECK(v.shape(A) == Shape{});
  }
  v.add(A, [&] { return g * v.in(X); });
  v.add(X, [&] { return v.has(A) ? g * v.in(A) : g; });
  v.add(B, [&] { return g; });
};

Samples<NoAttr> line_samples() {
  const Generator x = normal({2, 3}), length = lengths({1}, 6);
  return {with_inputs(x, x, x, length), with_inputs(absent(), x, x, length),
          with_inputs(x, x, absent(), absent()), with_inputs(absent(), x, absent(), absent()),
          with_inputs(absent(), x, absent(), length)};
}

Definition<> line(const char* name, const GradientRule<NoAttr>& gradient) {
  return {.name = name,
          .arguments = {optional("a"), "x", optional("b"), optional(integer("length"))},
          .shape = shape,
          .forward = forward,
          .gradient = gradient,
          .samples = line_samples()};
}

const Op<>& fused_line() {
  static const Op<> op{line("fused_line", fused(backward, specification))};
  return op;
}
const Op<>& rule_line() {
  static const Op<> op{line("rule_line", rule(line_rule, keeps_inputs))};
  return op;
}

const Reference line_reference = reference([](const Arrays& in) -> Arrays {
  Array y(in[X].shape);
  for (Index i = 0; i < y.size(); ++i)
    if (!in[LENGTH].given() || static_cast<double>(i) < in[LENGTH][0])
      y[i] = (in[A].given() ? in[A][i] : 1) * in[X][i] + (in[B].given() ? in[B][i] : 0);
  return {y};
});

// The number of values in the last line of what the tape prints.
std::string summary(const Tape& tape) {
  std::ostringstream out;
  tape.print(out);
  const std::string text = out.str();
  return text.substr(text.rfind('\n', text.size() - 2) + 1);
}

}  // namespace

TEST_CASE("ops with optional arguments pass every check") {
  for (const Op<>* op : {&fused_line(), &rule_line()}) {
    const Complaints complaints = check_op(op->spec(), line_reference);
    CHECK_MESSAGE(complaints.empty(), lines(complaints));
  }
}

TEST_CASE("an absent argument is not on the tape") {
  const Tensor none;
  for (const Op<>* op : {&fused_line(), &rule_line()}) {
    Tape tape({.check_finite = true, .profile = true});
    const Tensor x = tape.watch(tensor({2}, {2, 3}));
    const Tensor y = (*op)({&none, &x, &none, &none}, Site("a.cpp", 1));
    CHECK(y.to_vector() == Numbers{2, 3});
    CHECK(summary(tape) == "1 records, 2 values, 0 parameters; outputs of 8 bytes, " +
                               std::string(op == &fused_line() ? "8" : "0") + " of them held\n");
    const std::string dot = tape.dot();
    CHECK(std::count(dot.begin(), dot.end(), '>') == 1);
    CHECK(tape.gradient(sum(y), {x})[0].to_vector() == Numbers{1, 1});
  }
}

TEST_CASE("present arguments after an absent one get their gradients") {
  const Tensor none, length = full({1}, 1, i32);
  for (const Op<>* op : {&fused_line(), &rule_line()}) {
    Tape tape;
    const Tensor x = tape.watch(tensor({2}, {2, 3})), b = tape.watch(tensor({2}, {5, 7}));
    const Tensor y = (*op)({&none, &x, &b, &length}, {});
    CHECK(y.to_vector() == Numbers{7, 0});
    const auto first = tape.gradient(sum(square(y)), {x, b}, {.create_graph = true});
    CHECK(first[0].to_vector() == Numbers{14, 0});
    CHECK(first[1].to_vector() == Numbers{14, 0});
    const auto second = tape.gradient(sum(first[0]), {x, b}, {.keep = true});
    CHECK(second[0].to_vector() == Numbers{2, 0});
    CHECK(second[1].to_vector() == Numbers{2, 0});
    CHECK(tape.gradient(sum(y), {b})[0].to_vector() == Numbers{1, 0});
  }
}

TEST_CASE("an absent argument within a checkpoint, and under a hook") {
  const Tensor none, a = tensor({2}, {4, 5});
  Tape tape;
  const Tensor x = tape.watch(tensor({2}, {2, 3}));
  const auto f = [&](const Tensor& in) {
    return fused_line()({&a, &in, &none, &none}, {}) + rule_line()({&none, &in, &none, &none}, {});
  };
  const Tensor y = checkpoint([f](std::span<const Tensor> in) { return f(in[0]); }, {x});
  int calls = 0;
  tape.on_gradient(y, [&](const Tensor& g) {
    ++calls;
    return 2 * g;
  });
  CHECK(same_bits(y, f(x)));
  CHECK(tape.gradient(sum(y), {x})[0].to_vector() == Numbers{10, 12});
  CHECK(calls == 1);
}

TEST_CASE("the dtype of a call is that of the first floating-point argument given") {
  const Tensor none, length = full({1}, 1, i32);
  for (const DType dtype : {f32, f64}) {
    const Tensor x = ones({2}, dtype), other = ones({2}, dtype == f32 ? f64 : f32);
    CHECK(fused_line()({&none, &x, &none, &length}, {}).dtype() == dtype);
    CHECK_THROWS_WITH_AS(fused_line()({&none, &x, &other, &none}, {}), Contains("differ in dtype"),
                         DTypeError);
  }
}

TEST_CASE("errors name the arguments that were given, and required ones are required") {
  const Tensor none, x = ones({2}), b = ones({3}), length = ones({1}), many = zeros({2}, i32);
  const Site site("users.cpp", 5);
  CHECK(error_of<ShapeError>([&] {
          fused_line()({&none, &x, &b, &none}, site);
        }) ==
        "fused_line: a and b must have the shape of x; x is f32 [2], b is f32 [3] (users.cpp:5)");
  CHECK(error_of<DTypeError>([&] {
          fused_line()({&none, &x, &none, &length}, site);
        }) == "fused_line: length must be i32; x is f32 [2], length is f32 [1] (users.cpp:5)");
  CHECK(error_of<ShapeError>([&] {
          fused_line()({&none, &x, &none, &many}, site);
        }) ==
        "fused_line: the length must be one number; x is f32 [2], length is i32 [2] (users.cpp:5)");
  CHECK(error_of<ValueError>([&] {
          fused_line()({&x, &none, &x, &none}, site);
        }) == "fused_line: x is undefined: it was never given a value (users.cpp:5)");
  CHECK(error_of<ValueError>([&] {
          fused_line()({&x, &x}, site);
        }) == "fused_line: takes 4 arguments, not 2 (users.cpp:5)");
}

TEST_CASE("a value that is not kept is told from one that is absent") {
  const Op<> op{line("wrong", fused(backward, specification, keeps_nothing))};
  Tape tape;
  const Tensor none, x = tape.watch(ones({2}));
  const Tensor y = op({&none, &x, &none, &none}, {});
  CHECK_NOTHROW(tape.gradient(sum(y), {x}, {.keep = true}));  // reads only what is absent
  const Tensor z = 2 * x, again = op({&z, &z, &none, &none}, {});
  CHECK_THROWS_WITH_AS(tape.gradient(sum(again), {x}),
                       Contains("reads input 1, which the op does not declare to keep"),
                       GradientError);
}

TEST_CASE("errors only where an argument is absent are caught") {
  SUBCASE("values") {
    Definition<> wrong = line("wrong", rule(line_rule, keeps_inputs));
    wrong.forward = []<Real T>(Ctx<T> c) {
      forward(c);
      if (!c.has(B) && !c.out().empty()) c.out()[0] = 3;
    };
    const Op<> op{wrong};
    CHECK(complains(check_values(op.spec(), line_reference), "sample 2: f64"));
    CHECK_FALSE(complains(check_values(op.spec(), line_reference), "sample 0: f64"));
  }
  SUBCASE("gradients") {
    const Op<> op{line("wrong", rule(
                                    [](Vjp& v) {
                                      if (v.has(B)) line_rule(v);
                                    },
                                    keeps_inputs))};
    CHECK(complains(check_derivatives(op.spec()), "sample 2"));
    CHECK_FALSE(complains(check_derivatives(op.spec()), "sample 0"));
  }
  SUBCASE("no such sample") {
    Definition<> wrong = line("wrong", rule(line_rule, keeps_inputs));
    const Generator x = normal({3}), length = lengths({1}, 3);
    wrong.samples = {with_inputs(x, x, absent(), length), with_inputs(x, x, absent(), absent())};
    const Op<> op{wrong};
    const Complaints complaints = check_optional_arguments(op.spec());
    CHECK(complains(complaints, "no sample has an absent a"));
    CHECK(complains(complaints, "no sample has a given b"));
    CHECK(complaints.size() == 2);
    for (const Check& check : all_checks)
      if (check.run != check_optional_arguments)
        CHECK_MESSAGE(check(op.spec(), line_reference).empty(), check.name);
  }
  SUBCASE("an error that names it") {
    Definition<> wrong = line("wrong", rule(line_rule, keeps_inputs));
    wrong.shape = [](const Arguments& in) -> Shape {
      if (in.has(B) && in[B] != in[X])
        throw ShapeError(
            fmt::format("wrong: b; x is {} {}, b is {} {}, a is {} {}, length is {} {}",
                        name_of(in.dtype(X)), in[X].str(), name_of(in.dtype(B)), in[B].str(),
                        name_of(in.dtype(A)), in[A].str(), name_of(in.dtype(LENGTH)),
                        in[LENGTH].str()),
            Site("caller.cpp", 7));
      return shape(in);
    };
    const Op<> op{wrong};
    CHECK(complains(check_bad_arguments(op.spec()), "an error names a, which is absent: wrong: b"));
  }
}
