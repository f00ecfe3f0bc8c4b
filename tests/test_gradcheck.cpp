#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/stacked.h>

using namespace reel;
using namespace reel::op;
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
  CHECK(report.str().find("WRONG      1/12") != std::string::npos);
  CHECK(
      report.summary().starts_with("gradients: 2 of 4 checks failed\n"
                                   "x1[1, 3], order 1: WRONG (1 of 12); analytic "));
  CHECK(report.summary().find(", ratio 1.001\nx1[") != std::string::npos);
}

TEST_CASE("the fast mode finds and names one wrong element among many") {
  const Op<Flaw> flawed{flawed_definition};
  const auto f = [&](Inputs x) { return flawed({&x[0]}, {1234}, {}); };
  const auto inputs = random_inputs({{50, 100}});
  const GradientReport report = check_gradients(f, inputs, {.mode = Mode::fast});
  const auto& row = report.rows[0];
  CHECK(row.verdict == Verdict::wrong);
  CHECK(row.coordinate == 1234);
  CHECK(row.where == "x0[12, 34]");
  CHECK(row.failures == 3);
  CHECK(row.checked == 3);
  CHECK(row.analytic == doctest::Approx(1.001 * row.numeric).epsilon(1e-9));
}

TEST_CASE("the cost of the fast mode does not depend on the size") {
  for (const Index size : {1, 10, 10000}) {
    int calls = 0;
    const auto f = [&](Inputs x) {
      ++calls;
      return tanh(x[0]) * x[0];
    };
    CHECK(check_gradients(f, random_inputs({{size}}), {.mode = Mode::fast}).ok);
    CHECK(calls == 4 + 3 * 4);
  }
}

TEST_CASE("the fast mode does not average a small error away") {
  // A thousand coordinates of slope 100, and one of slope 1 that is wrong by 1e-4.
  const auto check = [](bool forget) {
    const auto f = [=](Inputs x) {
      const Tensor last = slice(x[0], 0, 1000, 1001);
      const Tensor rest = 100 * sum(slice(x[0], 0, 0, 1000));
      return rest + sum(last + 1e-4 * (forget ? last.detach() : last));
    };
    return check_gradients(f, random_inputs({{1001}}), {.mode = Mode::fast});
  };
  CHECK(check(false).ok);
  const auto report = check(true);
  CHECK(report.rows[0].verdict == Verdict::wrong);
  CHECK(report.rows[0].where == "x0[1000]");
}

TEST_CASE("a missing gradient is found") {
  const auto f = [](Inputs x) { return x[0].detach() * x[0]; };
  CHECK(check_gradients(f, random_inputs({{3}})).rows[0].verdict == Verdict::wrong);
  const auto constant = [](Inputs x) { return square(x[0].detach()); };
  CHECK(check_gradients(constant, random_inputs({{3}})).rows[0].verdict == Verdict::wrong);
}

TEST_CASE("a function that does not depend on its input has the gradient zero") {
  const auto f = [](Inputs) { return ones({2}, f64); };
  CHECK(check_gradients(f, random_inputs({{3}}), {.order = 2}).ok);
}

TEST_CASE("a kink is distinguished from an error") {
  const auto f = [](Inputs x) { return relu(x[0]); };
  const auto at = [&](double x) {
    return check_gradients(f, {tensor({3}, {-1, x, 2}, f64)}).rows[0];
  };
  CHECK(at(0.1).verdict == Verdict::ok);
  CHECK(at(0).verdict == Verdict::kink);
  CHECK(at(0).where == "x0[1]");
  CHECK(at(1e-6).verdict == Verdict::kink);
  CHECK(at(-1e-6).verdict == Verdict::kink);
  CHECK(at(1e-4).verdict == Verdict::ok);  // a smaller step does not reach the kink
  CHECK(at(-1e-4).verdict == Verdict::ok);

  // Not between the slopes 0 and 1: an error, even at a kink.
  const auto wrong = [](Inputs x) { return 3 * relu(x[0]) - 2 * relu(x[0]).detach(); };
  CHECK(check_gradients(wrong, {tensor({1}, {1e-6}, f64)}).rows[0].verdict == Verdict::wrong);
  // Between them, but the kink is not at the point of evaluation.
  const auto half = [](Inputs x) { return (relu(x[0]) + relu(x[0]).detach()) / 2; };
  CHECK(check_gradients(half, {tensor({1}, {1e-4}, f64)}).rows[0].verdict == Verdict::wrong);
  CHECK(check_gradients(half, {tensor({1}, {1e-8}, f64)}).rows[0].verdict == Verdict::kink);
}

TEST_CASE("neither a steep curve nor coarse rounding is an error") {
  const auto steep = [](Inputs x) { return tanh(1000 * x[0]); };
  const auto large = [](Inputs x) { return 1e9 + x[0]; };
  for (const Mode mode : {Mode::slow, Mode::fast}) {
    const auto at = tensor({2}, {1e-3, -2e-4}, f64);
    const auto report = check_gradients(steep, {at}, {.order = 2, .mode = mode});
    CHECK_MESSAGE(report.ok, report.str());
    CHECK(check_gradients(large, {at}, {.mode = mode}).ok);
  }
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

  const auto replayed = check_gradients(noisy, random_inputs({{20}}), {.replay = {&rng}});
  CHECK_MESSAGE(replayed.ok, replayed.str());
  CHECK(report.str().find("options.replay") != std::string::npos);
  CHECK(report.summary() == "gradients: 1 of 1 checks failed\nx0, order 1: not deterministic\n");
  CHECK(replayed.str().find("options.replay") == std::string::npos);

  // Two draws of one element agree half of the time.
  for (int i = 0; i < 10; ++i)
    CHECK(check_gradients(noisy, random_inputs({{1}})).rows[0].verdict ==
          Verdict::not_deterministic);

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

TEST_CASE("random draws are replayed at every order, and the generator is restored") {
  Rng rng(7);
  rng.skip(3);
  const Rng::State before = rng.state();
  const auto f = [&](Inputs x) { return square(dropout(square(x[0]), 0.3, rng)) + x[1]; };
  for (const Mode mode : {Mode::slow, Mode::fast}) {
    const auto report = check_gradients(f, random_inputs({{4, 3}, {3}}),
                                        {.order = 2, .mode = mode, .replay = {&rng}});
    CHECK_MESSAGE(report.ok, report.str());
    CHECK(rng.state() == before);
  }
}

TEST_CASE("the gradient that is recorded has to be that of the kernel") {
  // The specification's gradient is twice that of the kernel, and so is its derivative.
  const Op<> op{{
      "inconsistent",
      {"x"},
      same_shape,
      []<Real T>(Ctx<T> c) {
        for (std::size_t i = 0; i < c.out().size(); ++i) c.out()[i] = c.in(0)[i] * c.in(0)[i];
      },
      fused(
          []<Real T>(BackwardCtx<T> c) {
            for (Index i = 0; i < c.shape(0).size(); ++i) c.grad(0)[i] = 2 * c.in(0)[i] * c.g()[i];
          },
          [](std::span<const Tensor> in) -> Tensors { return {2 * square(in[0])}; }),
      {normal({3})},
  }};
  const auto f = [&](Inputs x) { return op({&x[0]}, {}); };
  CHECK(check_gradients(f, random_inputs({{3}})).ok);
  for (const Mode mode : {Mode::slow, Mode::fast}) {
    const auto report = check_gradients(f, random_inputs({{3}}), {.order = 2, .mode = mode});
    CHECK(report.rows[0].verdict == Verdict::ok);
    CHECK(report.rows[1].verdict == Verdict::wrong);
    CHECK(report.rows[1].failures == 3);
    CHECK(report.rows[1].where.ends_with("], as recorded by create_graph"));
    CHECK(report.rows[1].analytic == doctest::Approx(2 * report.rows[1].numeric));
  }
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

TEST_CASE("f32 must be requested") {
  const auto f = [](Inputs x) { return tanh(x[0]); };
  const std::vector<Tensor> inputs{tensor({3}, {0.1, 0.2, 0.3})};
  CHECK_THROWS_WITH_AS(
      check_gradients(f, inputs),
      "check_gradients: x0 is f32, too coarse for differences; convert it with to(f64), "
      "or set allow_f32 with a larger step and tolerances",
      DTypeError);
  Params params;
  const Param w = (params / "lstm").create("w", {3}, draw);
  const auto loss = [&] { return tanh(w); };
  CHECK_THROWS_WITH_AS(check_gradients(loss, params),
                       "check_gradients: lstm.w is f32, too coarse for differences; construct the "
                       "model once more on params.to(f64) and check that one, or set allow_f32 "
                       "with a larger step and tolerances",
                       DTypeError);
  // The parameters are converted, the function still uses the others.
  CHECK_THROWS_WITH_AS(check_gradients(loss, params.to(f64)),
                       "check_gradients: the result of the function is f32, but lstm.w is f64, so "
                       "it does not depend on it; the function has to use what is checked",
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

TEST_CASE("a model trained in f32 is checked in f64, and its gates are named") {
  const Params trained(4);
  const nn::Stacked<nn::Lstm> model(trained / "lstm", 2, 3);

  const Params exact = trained.to(f64);
  const nn::Stacked<nn::Lstm> same_model(exact / "lstm", 2, 3);
  const Tensor x = random_inputs({{4, 2, 2}})[0];
  const auto y = [&] { return same_model(x).y; };
  CHECK(check_gradients(y, exact, {.mode = Mode::fast}).ok);

  // The forget gate's row 1 of the second layer gets no gradient.
  const Param w = exact["lstm.1.w_hh"];
  const auto forgetful = [&] {
    const Tensor rows = w.tensor();
    return sum(square(slice(rows, 0, 0, 4))) + sum(square(slice(rows, 0, 4, 5).detach())) +
           sum(square(slice(rows, 0, 5, 12)));
  };
  for (const Mode mode : {Mode::slow, Mode::fast}) {
    const auto report = check_gradients(forgetful, exact / "lstm.1", {.mode = mode});
    CHECK(report.rows[1].name == "lstm.1.w_hh");
    CHECK(report.rows[1].where.starts_with("lstm.1.w_hh[forget, 1, "));
    CHECK(report.rows[1].failures == 3);
    CHECK(report.rows[0].verdict == Verdict::ok);
  }
  CHECK(coordinate_name(*exact["lstm.0.b"].entry(), 11) == "lstm.0.b[output, 2]");
  CHECK(coordinate_name(*trained.clone()["lstm.0.b"].entry(), 0) == "lstm.0.b[input, 0]");
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
