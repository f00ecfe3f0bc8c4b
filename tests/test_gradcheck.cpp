#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <reel/autograd/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

using namespace reel;
using doctest::Contains;
using Verdict = GradientReport::Verdict;
using Mode = GradcheckOptions::Mode;

namespace {

using Inputs = std::span<const Tensor>;

Tensor draw(Rng& rng, const Shape& shape, DType dtype) { return rng.normal(shape, 0, 1, dtype); }

std::vector<Tensor> random_inputs(std::initializer_list<Shape> shapes) {
  Rng rng(11);
  std::vector<Tensor> inputs;
  for (const Shape& shape : shapes) inputs.push_back(rng.normal(shape, 0, 1, f64));
  return inputs;
}

// x² whose gradient is wrong where the attribute says.
struct Flaw {
  Index element;
};
const auto flawed_definition = Definition<Flaw>{
    .name = "flawed_square",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c) {
          for (std::size_t i = 0; i < c.out().size(); ++i) c.out()[i] = c.in(0)[i] * c.in(0)[i];
        },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c, const Flaw& flaw) {
          for (Index i = 0; i < c.shape(0).size(); ++i)
            c.grad(0)[i] = 2 * c.in(0)[i] * c.g()[i] * (i == flaw.element ? T(1.001) : T(1));
        },
        [](std::span<const Tensor> in, const Flaw&) -> Tensors { return {square(in[0])}; }),
    .samples = {normal({3})},
};

}  // namespace

TEST_CASE("right gradients pass, to the third order and in both modes") {
  const auto f = [](Inputs x) { return tanh(matmul(x[0], x[1])) * exp(x[2]); };
  const auto inputs = random_inputs({{3, 4}, {4, 2}, {2}});
  for (const Mode mode : {Mode::slow, Mode::fast}) {
    const GradientReport report = check_gradients(f, inputs, {.order = 3, .mode = mode});
    CHECK_MESSAGE(report.ok, report.str());
    REQUIRE(report.rows.size() == 9);
    CHECK(report.rows[8].name == "x2");
    CHECK(report.rows[8].order == 3);
    CHECK(report.rows[0].shape == Shape{3, 4});
    CHECK(report.rows[0].checked == (mode == Mode::slow ? 12 : 3));
  }
}

TEST_CASE("a wrong element is found and named") {
  const Op<Flaw> flawed{flawed_definition};
  const auto f = [&](Inputs x) { return flawed({&x[1]}, {7}, {}) * x[0]; };
  const auto inputs = random_inputs({{3, 4}, {3, 4}});
  const GradientReport report = check_gradients(f, inputs, {.order = 2});
  CHECK(!report.ok);
  CHECK(report.rows[0].verdict == Verdict::ok);
  const auto& row = report.rows[1];
  CHECK(row.verdict == Verdict::wrong);
  CHECK(row.where == "x1[1, 3]");
  CHECK(row.coordinate == 7);
  CHECK(row.failures == 1);
  CHECK(row.checked == 12);
  CHECK(row.analytic == doctest::Approx(1.001 * row.numeric).epsilon(1e-9));
  CHECK(report.str().starts_with("gradients: 2 of 4 checks failed\ninput"));
  CHECK(report.str().find("WRONG    1/12") != std::string::npos);
}

TEST_CASE("the fast mode sees one wrong element among many, in a few evaluations") {
  const Op<Flaw> flawed{flawed_definition};
  int calls = 0;
  const auto f = [&](Inputs x) {
    ++calls;
    return flawed({&x[0]}, {1234}, {});
  };
  const auto inputs = random_inputs({{50, 100}});
  const GradientReport report = check_gradients(f, inputs, {.mode = Mode::fast});
  CHECK(report.rows[0].verdict == Verdict::wrong);
  CHECK(report.rows[0].coordinate == -1);
  CHECK(report.rows[0].where.starts_with("x0, direction "));
  CHECK(calls == 4 + 3 * 4);
}

TEST_CASE("a gradient that is forgotten is found") {
  const auto f = [](Inputs x) { return x[0].detach() * x[0]; };
  CHECK(check_gradients(f, random_inputs({{3}})).rows[0].verdict == Verdict::wrong);
  const auto constant = [](Inputs x) { return square(x[0].detach()); };
  CHECK(check_gradients(constant, random_inputs({{3}})).rows[0].verdict == Verdict::wrong);
}

TEST_CASE("a function that does not depend on its input has the gradient zero") {
  const auto f = [](Inputs) { return ones({2}, f64); };
  CHECK(check_gradients(f, random_inputs({{3}}), {.order = 2}).ok);
}

TEST_CASE("a kink is told from an error") {
  const auto f = [](Inputs x) { return relu(x[0]); };
  const auto at = [&](double x) {
    return check_gradients(f, {tensor({3}, {-1, x, 2}, f64)}).rows[0];
  };
  CHECK(at(0.1).verdict == Verdict::ok);
  CHECK(at(0).verdict == Verdict::kink);
  CHECK(at(0).where == "x0[1]");
  CHECK(at(1e-4).verdict == Verdict::kink);
  CHECK(at(-1e-4).verdict == Verdict::kink);

  // Not between the slopes 0 and 1: an error, kink or not.
  const auto wrong = [](Inputs x) { return 3 * relu(x[0]) - 2 * relu(x[0]).detach(); };
  CHECK(check_gradients(wrong, {tensor({1}, {1e-4}, f64)}).rows[0].verdict == Verdict::wrong);
}

TEST_CASE("NaN and infinity are reported") {
  const auto f = [](Inputs x) { return log(x[0]); };
  CHECK(check_gradients(f, {tensor({2}, {1, -1}, f64)}).rows[0].verdict == Verdict::not_finite);
  CHECK(check_gradients(f, {tensor({2}, {1, 0}, f64)}).rows[0].verdict == Verdict::not_finite);
}

TEST_CASE("a function that is not deterministic is reported as such") {
  Rng rng(1);
  const auto noisy = [&](Inputs x) { return dropout(x[0], 0.5, rng); };
  const auto report = check_gradients(noisy, random_inputs({{20}}));
  CHECK(!report.ok);
  CHECK(report.rows[0].verdict == Verdict::not_deterministic);
  CHECK(report.rows[0].where == "two results differ");

  double scale = 1;  // the value stays, the gradient changes
  const auto drifting = [&](Inputs x) {
    scale *= 2;
    return scale * x[0];
  };
  const auto drift = check_gradients(drifting, {zeros({2}, f64)});
  CHECK(drift.rows[0].verdict == Verdict::not_deterministic);
  CHECK(drift.rows[0].where == "two gradients differ");
  CHECK(drift.str().find("not deterministic") != std::string::npos);
}

TEST_CASE("integer inputs are constants") {
  const auto f = [](Inputs x) { return gather_rows(x[0], x[1]); };
  const auto report = check_gradients(f, {random_inputs({{4, 2}})[0], tensor({3}, {0, 3, 3}, i32)});
  CHECK(report.ok);
  CHECK(report.rows.size() == 1);
}

TEST_CASE("a function may take gradients itself") {
  const auto f = [](Inputs x) {
    const Tensor y = sum(square(x[0]) * x[0] * x[1]);
    return Tape::current()->gradient(y, {x[0]}, {.create_graph = true})[0];
  };
  const auto report = check_gradients(f, random_inputs({{3}, {3}}), {.order = 2});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("f32 must be asked for") {
  const auto f = [](Inputs x) { return tanh(x[0]); };
  const std::vector<Tensor> inputs{tensor({3}, {0.1, 0.2, 0.3})};
  CHECK_THROWS_WITH_AS(
      check_gradients(f, inputs),
      "check_gradients: x0 is f32, too coarse for differences; convert it with to(f64), "
      "or set allow_f32 with a larger step and tolerances",
      DTypeError);
  const auto report =
      check_gradients(f, inputs, {.rtol = 1e-3, .atol = 1e-4, .step = 0x1p-6, .allow_f32 = true});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("bad calls say what is wrong") {
  const auto f = [](Inputs x) { return x[0]; };
  CHECK_THROWS_WITH_AS(check_gradients(f, random_inputs({{1}}), {.order = 0}),
                       "check_gradients: order, step and directions must be positive", ValueError);
  CHECK_THROWS_WITH_AS(check_gradients(f, {Tensor()}), "check_gradients: x0 is undefined",
                       ValueError);
  CHECK_THROWS_WITH_AS(check_gradients([](Inputs x) { return x[0] > 0; }, random_inputs({{1}})),
                       "check_gradients: the result of the function must be f32 or f64",
                       DTypeError);
  int calls = 0;
  const auto growing = [&](Inputs x) { return broadcast_to(x[0], Shape{++calls}); };
  CHECK_THROWS_WITH_AS(check_gradients(growing, random_inputs({{1}})),
                       "check_gradients: the shape of the result differs from call to call",
                       ShapeError);
}

TEST_CASE("parameters are checked by name, and get their values back") {
  const Params params(3, f64);
  const Param w = (params / "cell").create("w_hh", {2, 2}, draw), b = params.create("b", {2}, draw);
  const Tensor x = random_inputs({{3, 2}})[0];
  const auto before_w = w.value().to_vector(), before_b = b.value().to_vector();
  const auto model = [&](const Tensor& in) { return sum(square(tanh(matmul(in, w)) + b)); };

  const auto restored = [&] {
    CHECK(w.value().to_vector() == before_w);
    CHECK(b.value().to_vector() == before_b);
    CHECK(w.entry()->version == 0);
  };
  SUBCASE("parameters alone") {
    const auto report = check_gradients([&] { return model(x); }, params, {.order = 2});
    CHECK_MESSAGE(report.ok, report.str());
    REQUIRE(report.rows.size() == 4);
    CHECK(report.rows[0].name == "cell.w_hh");
    CHECK(report.rows[1].name == "b");
    restored();
  }
  SUBCASE("parameters and inputs") {
    const auto report = check_gradients([&](Inputs in) { return model(in[0]); }, params, {{"x", x}},
                                        {.mode = Mode::fast});
    CHECK_MESSAGE(report.ok, report.str());
    CHECK(report.rows[2].name == "x");
    restored();
  }
  SUBCASE("part of the store") {
    CHECK(check_gradients([&] { return model(x); }, params / "cell").rows.size() == 1);
    restored();
  }
  SUBCASE("a recording tape does not notice") {
    Tape tape;
    const Tensor loss = model(x);
    CHECK(check_gradients([&] { return model(x); }, params).ok);
    CHECK(tape.gradient(loss, params)["b"].size() == 2);
    restored();
  }
  SUBCASE("coordinates named by the caller") {
    const auto gates = [](const std::string& name, const Shape& shape, Index flat) {
      return name + (flat / shape[1] == 0 ? "[input, " : "[forget, ") +
             std::to_string(flat % shape[1]) + "]";
    };
    const auto forgetful = [&] {
      const Tensor held = w.tensor();
      return sum(slice(held, 0, 0, 1)) + sum(slice(held.detach(), 0, 1, 2));
    };
    const auto report = check_gradients(forgetful, params / "cell", {.coordinate_name = gates});
    CHECK(report.rows[0].verdict == Verdict::wrong);
    CHECK(report.rows[0].where.starts_with("cell.w_hh[forget, "));
    CHECK(report.rows[0].failures == 2);
  }
  SUBCASE("the function throws") {
    int calls = 0;
    const auto failing = [&] {
      if (++calls == 9) throw std::runtime_error("out of luck");
      return model(x);
    };
    CHECK_THROWS_WITH_AS(check_gradients(failing, params), "out of luck", std::runtime_error);
    restored();
  }
}

TEST_CASE("empty and scalar inputs are checked") {
  const auto f = [](Inputs x) { return sum(x[0]) + square(x[1]); };
  for (const Mode mode : {Mode::slow, Mode::fast}) {
    const auto report = check_gradients(f, {zeros({0, 3}, f64), scalar(2, f64)}, {.mode = mode});
    CHECK(report.ok);
    CHECK(report.rows[0].checked == 0);
  }
  const auto report = check_gradients(f, {zeros({0, 3}, f64), scalar(2, f64)});
  CHECK(report.rows[1].where == "x1");
}
