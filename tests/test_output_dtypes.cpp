// Ops whose outputs differ in dtype: floating-point values and integers.
#include <doctest/doctest.h>

#include <algorithm>

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
using Numbers = std::vector<double>;

namespace {

// The position of the largest element of each row and its value, x [R, N] -> i32 [R] and [R]; the
// backward kernel reads the position from a hidden copy.
constexpr auto peak_shape = [](const Arguments& in) -> Shapes {
  if (in[0].rank() != 2 || in[0][1] == 0) in.fail("x must be a matrix with columns");
  const Shape rows{in[0][0]};
  return {integer(rows), rows, integer(rows)};
};

constexpr auto peak = []<Real T>(Ctx<T> c) {
  const Index columns = c.shape(0)[1];
  for (Index r = 0; r < c.shape(0)[0]; ++r) {
    const T* row = c.in(0).data() + r * columns;
    const auto at = static_cast<std::size_t>(r);
    const auto best = static_cast<std::int32_t>(std::max_element(row, row + columns) - row);
    c.integer_out(0)[at] = best;
    c.out(1)[at] = row[best];
    if (c.recording()) c.integer_out(2)[at] = best;
  }
};

constexpr auto peak_backward = []<Real T>(BackwardCtx<T> c) {
  CHECK(c.g(0) == nullptr);
  const Index columns = c.shape(0)[1];
  std::fill_n(c.grad(0), c.shape(0).size(), T(0));
  for (Index r = 0; r < c.shape(0)[0]; ++r)
    c.grad(0)[r * columns + c.out_indices(2)[r]] = c.g(1)[r];
};

constexpr auto peak_specification = [](std::span<const Tensor> in) -> Tensors {
  return {argmax(in[0], 1), max(in[0], 1)};
};

const Op<>& fused_peak() {
  static const Op<> op{{
      .name = "fused_peak",
      .arguments = {"x"},
      .shape = peak_shape,
      .forward = peak,
      .gradient = fused(peak_backward, peak_specification, keeps_all),
      .samples = {distinct({3, 4}), distinct({1, 1}), distinct({0, 2})},
      .hidden_outputs = 1,
  }};
  return op;
}

const Reference peak_reference = [] {
  Reference result = reference([](const Arrays& in) -> Arrays {
    const Index rows = in[0].shape[0], columns = in[0].shape[1];
    Array y(Shape{rows}), at(Shape{rows});
    for (Index r = 0; r < rows; ++r) {
      const double* row = in[0].x.data() + r * columns;
      at[r] = static_cast<double>(std::max_element(row, row + columns) - row);
      y[r] = row[static_cast<Index>(at[r])];
    }
    return {at, y};
  });
  result.special = false;  // NaN
  return result;
}();

Tensors run_peak(const Tensor& x, Site site = {}) {
  const Tensor* const inputs[] = {&x};
  return fused_peak().all(inputs, {}, site);
}

}  // namespace

TEST_CASE("an op of a floating-point and an integer output passes every check") {
  const Complaints complaints = check_op(fused_peak().spec(), peak_reference);
  CHECK_MESSAGE(complaints.empty(), lines(complaints));
}

TEST_CASE("each output has its dtype") {
  for (const DType dtype : {f32, f64}) {
    const Tensors y = run_peak(tensor({2, 3}, {1, 5, 2, 7, 0, 3}, dtype));
    REQUIRE(y.size() == 2);
    CHECK(y[0].dtype() == i32);
    CHECK(y[0].to_vector() == Numbers{1, 0});
    CHECK(y[1].dtype() == dtype);
    CHECK(y[1].to_vector() == Numbers{5, 7});
  }
  const auto [values, indices] = topk(tensor({3}, {4, 9, 6}, i32), 2);
  CHECK(values.dtype() == i32);
  CHECK(values.to_vector() == Numbers{9, 6});
  CHECK(indices.to_vector() == Numbers{1, 2});
  const Shapes shapes{Shape{2}, integer(Shape{3}), Shape{4}};
  CHECK(shapes.is_integer(1));
  CHECK_FALSE(shapes.is_integer(2));
  CHECK(shapes[1] == Shape{3});
  CHECK(Shapes(integer(Shape{5})).is_integer(0));
}

TEST_CASE("gradients of every order pass by integer outputs") {
  const auto outputs = [](const Tensor& x, bool fused) -> Tensors {
    if (fused) return run_peak(x);
    const auto [values, indices] = topk(x, 1, 1);
    return {squeeze(indices, 1), squeeze(values, 1)};
  };
  for (const bool fused : {true, false}) {
    Tape tape;
    const Tensor x = tape.watch(tensor({2, 3}, {1, 5, 2, 7, 0, 3}, f64));
    const Tensors y = outputs(x, fused);
    // The integers are constants of the same tape.
    const Tensor loss = sum(square(y[1]) * take_along(exp(0 * x), expand(y[0], -1), 1)[0]);
    const Tensor g = tape.gradient(loss, {x}, {.create_graph = true})[0];
    CHECK(g.to_vector() == Numbers{0, 10, 0, 14, 0, 0});
    CHECK(tape.gradient(sum(square(g)), {x}, {.keep = true})[0].to_vector() ==
          Numbers{0, 40, 0, 56, 0, 0});
    CHECK(error_of<GradientError>([&] {
            tape.gradient(y[0], {x}, {.seed = ones({2}, f64)}, Site("a.cpp", 4));
          }) == "gradient: the output is i32, and integers have no gradient (a.cpp:4)");
    CHECK(tape.gradient(loss, {x})[0].to_vector() == Numbers{0, 10, 0, 14, 0, 0});
    CHECK(y[0].to_vector() == Numbers{1, 0});
    CHECK(sum(y[0]).item() == 1);  // still a constant
  }
}

TEST_CASE("the tape keeps of the outputs what the op declares") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2, 3}, {1, 5, 2, 7, 0, 3}));
  const auto [values, indices] = topk(x, 2, 1);
  CHECK(values.buffer().unique());
  CHECK_FALSE(indices.buffer().unique());
  CHECK(tape.held_bytes() == 16);
  tape.gradient(sum(values), {x});
  CHECK(indices.buffer().unique());
}

TEST_CASE("integer outputs come through a checkpoint") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2, 3}, {1, 5, 2, 7, 0, 3}));
  const Tensor y = checkpoint([](std::span<const Tensor> in) { return run_peak(in[0])[1]; }, {x});
  CHECK(tape.gradient(sum(y), {x})[0].to_vector() == Numbers{0, 1, 0, 1, 0, 0});
}

TEST_CASE("an op of integers alone has to say why it has no gradient") {
  const Op<> op{{.name = "wrong",
                 .arguments = {"x"},
                 .shape = [](const Arguments& in) { return integer(in[0]); },
                 .forward =
                     []<Real T>(Ctx<T> c) {
                       std::ranges::transform(c.in(0), c.integer_out().begin(),
                                              [](T x) { return static_cast<std::int32_t>(x); });
                     },
                 .gradient = rule([](Vjp&) {}, keeps_nothing),
                 .samples = {values({1, 2})}}};
  CHECK(complains(check_none(op.spec()), "its results are integers, but it has a gradient"));
}
