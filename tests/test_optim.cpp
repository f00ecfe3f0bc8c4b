#include <fmt/format.h>

#include <reel/nn/files/safetensors.h>
#include <reel/nn/init.h>

#include <cmath>

#include "optimizers.h"

using namespace reel;
using namespace reel::testing;

TEST_CASE("the first steps of Adam and SGD, by hand") {
  const Params params(0, f64);
  Param p = create(params, "p", {1, 1});
  Adam adam(params, {.learning_rate = 0.25, .epsilon = 1e-100});
  adam.step(gradient_of(params, p,
                        {3, -0.001}));  // whatever the gradient's magnitude, the first step is lr
  CHECK(p.value().at({0}) == doctest::Approx(0.75).epsilon(1e-14));
  CHECK(p.value().at({1}) == doctest::Approx(1.25).epsilon(1e-14));

  p.set(tensor({2}, {1, 1}, f64));
  Sgd sgd(params, {.learning_rate = 0.5});
  sgd.step(gradient_of(params, p, {4, -1}));
  CHECK(p.value().to_vector() == std::vector<double>{-1, 1.5});
}

TEST_CASE("a gradient that shares memory with its parameter is read before it changes") {
  const Params params(0, f64);
  const Param p = create(params, "p", {1, 2, 3});
  Gradients gradients(params);
  gradients.set(*p.entry(), p.value());
  Sgd(params, {.learning_rate = 0.5}).step(gradients);
  CHECK(p.value().to_vector() == std::vector<double>{0.5, 1, 1.5});
  CHECK(gradients[p].to_vector() == std::vector<double>{1, 2, 3});
}

TEST_CASE("an optimizer of a part leaves the rest of the store to others") {
  const Params params(0, f64);
  const Param a = create(params / "a", "x", {1}), b = create(params / "b", "x", {1});
  Sgd first(params / "a", {.learning_rate = 1}), second(params / "b", {.learning_rate = 2});
  Gradients gradients(params);
  for (const Param& param : params.list()) gradients.set(*param.entry(), ones({1}, f64));
  first.step(gradients);
  CHECK(a.value().item() == 0);
  CHECK(b.value().item() == 1);
  second.step(gradients);
  CHECK(b.value().item() == -1);
  CHECK_THROWS_WITH_AS(
      first.step(Gradients(params / "b")),
      doctest::Contains(
          "sgd: these gradients are of another part: parameter a.x is not in it; take them with "
          "respect to the parameters that the optimizer was given (" __FILE__ ":"),
      ValueError);
}

TEST_CASE("the learning rate can be changed between steps") {
  const Params params(0, f64);
  const Param p = create(params, "p", {1});
  Sgd sgd(params, {.learning_rate = 0.5});
  CHECK(sgd.learning_rate() == 0.5);
  sgd.set_learning_rate(0);
  sgd.step(gradient_of(params, p, {1}));
  CHECK(p.value().item() == 1);
  sgd.set_learning_rate(0.25);
  sgd.step(gradient_of(params, p, {1}));
  CHECK(p.value().item() == 0.75);
  CHECK_THROWS_WITH_AS(
      sgd.set_learning_rate(-1),
      doctest::Contains("sgd: learning_rate is -1, but has to be in [0, inf) (" __FILE__ ":"),
      ValueError);
  CHECK(sgd.learning_rate() == 0.25);
}

template <class F>
void check_refused(F make, const std::string& message) {
  CHECK_THROWS_WITH_AS(make(), doctest::Contains((message + " (" __FILE__ ":").c_str()),
                       ValueError);
}

TEST_CASE("options out of range are refused") {
  const Params params = two_parameters();
  CHECK_NOTHROW(Adam(params, {.learning_rate = 0, .beta1 = 0, .beta2 = 0}));
  check_refused([&] { Adam(params, {.learning_rate = -1e-3}); },
                "adam: learning_rate is -0.001, but has to be in [0, inf)");
  check_refused([&] { Adam(params, {.learning_rate = not_a_number}); },
                "adam: learning_rate is nan, but has to be in [0, inf)");
  check_refused([&] { Adam(params, {.learning_rate = infinity}); },
                "adam: learning_rate is inf, but has to be in [0, inf)");
  check_refused([&] { Adam(params, {.beta1 = 1}); }, "adam: beta1 is 1, but has to be in [0, 1)");
  check_refused([&] { Adam(params, {.beta2 = -0.1}); },
                "adam: beta2 is -0.1, but has to be in [0, 1)");
  check_refused([&] { Adam(params, {.epsilon = -1}); },
                "adam: epsilon is -1, but has to be in [0, inf)");
  check_refused([&] { AdamW(params, {.weight_decay = -1}); },
                "adamw: weight_decay is -1, but has to be in [0, inf)");
  check_refused([&] { Sgd(params, {.momentum = -0.5}); },
                "sgd: momentum is -0.5, but has to be in [0, 1)");
  check_refused([&] { Sgd(params, {.weight_decay = -0.5}); },
                "sgd: weight_decay is -0.5, but has to be in [0, inf)");
  check_refused([&] { Sgd(params, {.nesterov = true}); },
                "sgd: nesterov needs a momentum, such as 0.9, and no dampening");
  check_refused([&] { RmsProp(params, {.alpha = 1.5}); },
                "rmsprop: alpha is 1.5, but has to be in [0, 1)");
  check_refused([&] { RmsProp(params, {.epsilon = -1}); },
                "rmsprop: epsilon is -1, but has to be in [0, inf)");
  check_refused([&] { RmsProp(params, {.momentum = not_a_number}); },
                "rmsprop: momentum is nan, but has to be in [0, 1)");
}

TEST_CASE("a momentum that cannot decay is refused") {
  const Params params = two_parameters();
  check_refused([&] { Sgd(params, {.momentum = 1}); },
                "sgd: momentum is 1, but has to be in [0, 1)");
  check_refused([&] { RmsProp(params, {.momentum = 2}); },
                "rmsprop: momentum is 2, but has to be in [0, 1)");
  CHECK_NOTHROW(RmsProp(params, {.momentum = 0.999}));
}

TEST_CASE("an epsilon protects where squares of gradients underflow, or is refused") {
  for (const DType dtype : {f32, f64}) {
    const Params params(0, dtype);
    const auto one = [](Rng&, const Shape& shape, DType type) { return ones(shape, type); };
    Param p = params.create("p", {1}, one);
    for (const double epsilon : {0.0, 1e-160, dtype == f32 ? 1e-19 : 1e-154}) {
      CHECK_THROWS_WITH_AS(Adam(params, {.epsilon = epsilon}),
                           doctest::Contains("adam: epsilon is"), ValueError);
      CHECK_THROWS_WITH_AS(AdamW(params, {.epsilon = epsilon}),
                           doctest::Contains("adamw: epsilon is"), ValueError);
      CHECK_THROWS_WITH_AS(RmsProp(params, {.epsilon = epsilon}),
                           doctest::Contains("rmsprop: epsilon is"), ValueError);
    }
    CHECK_NOTHROW(RmsProp(params, {.epsilon = 1e-15}));
    // No step is larger than the learning rate, and none is not a number.
    for (const double epsilon : {1e-8, 1e-15, dtype == f32 ? 3.5e-18 : 4.8e-153})
      for (const double g : {0.0, 1e-38, 1e-25, 3e-18, 1e-15, 1e-8, 1.0, 1e-300, 1e-180, 1e-152}) {
        p.set(ones({1}, dtype));
        Adam adam(params, {.learning_rate = 0.5, .epsilon = epsilon});
        Gradients gradients(params);
        gradients.set(*p.entry(), full({1}, g, dtype));
        adam.step(gradients);
        CHECK(p.value().item() <= 1);
        CHECK(p.value().item() >= 0.49);
        if (g == 0) CHECK(p.value().item() == 1);
      }
  }
}

TEST_CASE("options of Asgd, Rprop and Muon out of range are refused") {
  const Params params = two_parameters();
  check_refused([&] { Asgd(params, {.decay = -1}); },
                "asgd: decay is -1, but has to be in [0, inf)");
  check_refused([&] { Asgd(params, {.power = infinity}); },
                "asgd: power is inf, but has to be in [0, inf)");
  check_refused([&] { Asgd(params, {.start = -1}); },
                "asgd: start is -1, but has to be in [0, inf)");
  check_refused([&] { Rprop(params, {.shrink = 0}); },
                "rprop: shrink is 0, but has to be in (0, 1)");
  check_refused([&] { Rprop(params, {.shrink = 1}); },
                "rprop: shrink is 1, but has to be in [0, 1)");
  check_refused([&] { Rprop(params, {.grow = 1}); },
                "rprop: grow is 1, but has to be greater than 1");
  for (const double least : {0.0, 60.0})
    check_refused([&] { Rprop(params, {.least_step = least}); },
                  fmt::format("rprop: least_step is {}, but has to be in [1.2e-38, 50], up to "
                              "greatest_step",
                              least));
  check_refused([&] { Rprop(params, {.greatest_step = infinity}); },
                "rprop: greatest_step is inf, but has to be in [0, inf)");
  check_refused(
      [&] {
        Muon(params, {.coefficients = {1, not_a_number, 1}});
      },
      "muon: one of the coefficients is nan, but has to be finite");
}

TEST_CASE("Rprop: sizes by hand, whatever the magnitude of the gradients") {
  const Params params(0, f32);
  const Param p = create(params, "p", {0});
  Rprop rprop(params, {.learning_rate = 0.5, .shrink = 0.25, .grow = 2, .greatest_step = 1.5});
  std::vector<double> seen;
  // Squares of 1e-30 underflow.
  for (const double g : {1e-30, 1e-30, 2e-30, -1e-30, -1e30, -1.0, 0.0, 1.0}) {
    rprop.set_learning_rate(rprop.learning_rate() / 2);  // which only the first step has
    rprop.step(gradient_of(params, p, {g}));
    seen.push_back(p.value().item());
  }
  // 0.25, 0.5, 1, then the sign changes: 0.25 and no step, 0.25, 0.5, none, and 0.5 again.
  CHECK(seen == std::vector<double>{-0.25, -0.75, -1.75, -1.75, -1.5, -1, -1, -1.5});
}

TEST_CASE("Asgd: the average of the steps from a time on, and of rows without a gradient") {
  const Params params(0, f64);
  const Param p = create(params, "p", {8});
  Asgd asgd(params, {.learning_rate = 1, .decay = 0, .start = 2});
  for (const double g : {1, 1, 1, 2, 3}) asgd.step(gradient_of(params, p, {g}));
  const nn::NamedTensors average = asgd.state().part("asgd.average.");
  CHECK(average["p"].item() == doctest::Approx((3.0 + 0) / 2));  // after steps 4 and 5
  nn::load_params(average, params);
  CHECK(p.value().item() == average["p"].item());

  const Params rows(0, f64);
  const Param w = rows.create("w", {2, 1}, nn::init::constant(3));
  Asgd lazy(rows, {.learning_rate = 1, .decay = 0, .groups = {{.params = "w", .lazy_rows = true}}});
  Gradients gradients(rows);
  gradients.set(*w.entry(), tensor({2, 1}, {1, 0}, f64));
  lazy.step(gradients);
  CHECK(lazy.state()["asgd.average.w"].to_vector() == std::vector<double>{2, 3});
}

TEST_CASE("an optimizer wants the parameters of its own store, all of them") {
  CHECK_THROWS_WITH_AS(
      Adam(Params{}),
      doctest::Contains(
          "adam: there are no parameters to train; construct the model before the optimizer: "),
      ValueError);

  const Params params = two_parameters(), copy = params.clone();
  Adam adam(params);
  const std::vector<double> before = params["u"].value().to_vector();
  CHECK_THROWS_WITH_AS(
      adam.step(gradients_of(copy, 0)),
      doctest::Contains(
          "adam: these gradients are of another store: parameter u is not in it; take them with "
          "respect to the parameters that the optimizer was given (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_AS(adam.step(Gradients{}), ValueError);

  create(params, "late", {1});
  CHECK_THROWS_WITH_AS(adam.step(gradients_of(params, 0)),
                       doctest::Contains("adam: 1 parameters were created after the optimizer; "
                                         "construct the whole model before it (" __FILE__ ":"),
                       ValueError);
  CHECK(params["u"].value().to_vector() == before);
  CHECK(adam.state()["adam.steps.u"].item() == 0);
}
