#include <reel/optim/non_monotonic_trigger.h>
#include <reel/optim/reduce_on_plateau.h>
#include <reel/optim/schedule.h>

#include "optimizers.h"

using namespace reel;
using namespace reel::testing;

TEST_CASE("ExponentialDecay is char-rnn's schedule") {
  const ExponentialDecay schedule{.learning_rate = 2e-3, .factor = 0.97, .after = 10};
  double rate = 2e-3;
  for (int epoch = 1; epoch <= 50; ++epoch) {
    CHECK(schedule.at(epoch) == doctest::Approx(rate).epsilon(1e-13));
    if (epoch >= 10) rate *= 0.97;  // at the end of an epoch, as char-rnn does it
  }
  CHECK(ExponentialDecay{.learning_rate = 1, .factor = 0.5, .after = 0}.at(1) == 1);
  CHECK(ExponentialDecay{.learning_rate = 1, .factor = 0.5, .after = 0}.at(3) == 0.25);
  CHECK_THROWS_WITH_AS(
      schedule.at(0),
      doctest::Contains(
          "ExponentialDecay: the step or epoch is 0, but has to be 1 or more (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_WITH_AS(ExponentialDecay{.learning_rate = -1}.at(1),
                       doctest::Contains("ExponentialDecay: learning_rate is -1, but has to be a "
                                         "finite number >= 0 (" __FILE__ ":"),
                       ValueError);
}

TEST_CASE("StepDecay changes the rate after every few epochs") {
  const StepDecay schedule{.learning_rate = 1, .factor = 0.5, .every = 2};
  std::vector<double> rates;
  for (int epoch = 1; epoch <= 5; ++epoch) rates.push_back(schedule.at(epoch));
  CHECK(rates == std::vector<double>{1, 1, 0.5, 0.5, 0.25});
  CHECK_THROWS_WITH_AS(
      StepDecay{.every = 0}.at(1),
      doctest::Contains("StepDecay: every is 0, but has to be 1 or more (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_WITH_AS(
      StepDecay{.factor = not_a_number}.at(1),
      doctest::Contains("StepDecay: factor is nan, but has to be a finite number >= 0 (" __FILE__
                        ":"),
      ValueError);
}

TEST_CASE("a warm-up, in steps, before a schedule of epochs") {
  const Schedule schedule =
      Warmup{.steps = 4,
             .then = ByEpoch{.steps = 3,
                             .epochs = StepDecay{.learning_rate = 0.8, .factor = 0.5, .every = 1}}};
  const std::vector<double> expected = {0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2};
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(schedule.at(static_cast<Index>(i) + 1) == doctest::Approx(expected[i]));
  CHECK_FALSE(schedule.length());
}

TEST_CASE("parts of a schedule follow each other, and each counts from 1") {
  const Schedule schedule =
      Sequence{.parts = {{2, 0.5}, {3, CosineDecay{.learning_rate = 0.4, .length = 3}}},
               .last = PolynomialDecay{.learning_rate = 0.1, .length = 5}};
  CHECK(schedule.at(2) == 0.5);
  CHECK(schedule.at(3) == 0.4);
  CHECK(schedule.at(6) == 0.1);
  CHECK(schedule.at(10) == doctest::Approx(0.02));
  CHECK(schedule.length() == 10);
  CHECK_NOTHROW(schedule.require_length(10));
  CHECK_THROWS_WITH_AS(schedule.require_length(12),
                       doctest::Contains("the schedule of the learning rate is of 10 steps, but "
                                         "the run of 12; give both the same length (" __FILE__ ":"),
                       ValueError);
}

TEST_CASE("a schedule with an end has no rate beyond it, where PyTorch's rise again or stay 0") {
  CHECK_THROWS_WITH_AS(CosineDecay{.length = 10}.at(11),
                       doctest::Contains("CosineDecay: it ends at 10, and was asked for 11; give "
                                         "it the length of the run (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_AS(PolynomialDecay{.length = 10}.at(11), ValueError);
  CHECK_THROWS_AS(OneCycle{.length = 10}.at(11), ValueError);
  const Schedule endless[] = {0.5, StepDecay{}, ExponentialDecay{},
                              CosineDecay{.length = 10, .restarts = true}};
  for (const Schedule& schedule : endless) {
    CHECK_FALSE(schedule.length());
    CHECK_NOTHROW(schedule.require_length(7));
    CHECK(schedule.at(1'000'000'000'000) >= 0);
  }
}

TEST_CASE("settings of schedules out of range are refused") {
  CHECK_THROWS_AS(Schedule{-1.0}, ValueError);
  CHECK_THROWS_AS(Schedule{not_a_number}, ValueError);
  CHECK_THROWS_AS(Schedule{0.1}.at(0), ValueError);
  CHECK_THROWS_AS((Warmup{.steps = 0}.at(1)), ValueError);
  CHECK_THROWS_AS((CosineDecay{.length = 0}.at(1)), ValueError);
  CHECK_THROWS_AS((CosineDecay{.growth = 0}.at(1)), ValueError);
  CHECK_THROWS_AS((PolynomialDecay{.power = -1}.at(1)), ValueError);
  CHECK_THROWS_AS((OneCycle{.rise = 1.5}.at(1)), ValueError);
  CHECK_THROWS_AS((OneCycle{.start_divisor = 0}.at(1)), ValueError);
  CHECK_THROWS_AS((ByEpoch{.steps = 0, .epochs = 0.1}.at(1)), ValueError);
  CHECK_THROWS_AS((Sequence{.parts = {{0, 0.1}}, .last = 0.1}.at(1)), ValueError);
  CHECK_THROWS_AS(ReduceOnPlateau({.factor = 1}), ValueError);
  CHECK_THROWS_AS(ReduceOnPlateau({.patience = -1}), ValueError);
}

TEST_CASE("a plateau of negative numbers, and of numbers that are none") {
  ReduceOnPlateau plateau({.factor = 0.5, .patience = 0});
  CHECK_FALSE(plateau.update(-0.9));  // an accuracy of 0.9, negated
  CHECK(plateau.update(-0.9));        // the same is no improvement
  CHECK_FALSE(plateau.update(-0.95));
  CHECK(plateau.update(not_a_number));
  CHECK(plateau.factor() == 0.25);
  CHECK(plateau.best() == -0.95);
  nn::NamedTensors damaged = plateau.state();
  damaged.tensors["plateau.bad"] = scalar(0.5, f64);
  CHECK_THROWS_WITH_AS(plateau.restore(damaged),
                       doctest::Contains("entry plateau.bad of the state is 0.5, but has to be a "
                                         "count (" __FILE__ ":"),
                       ValueError);
  damaged = plateau.state();
  damaged.tensors["plateau.factor"] = scalar(2, f64);
  CHECK_THROWS_AS(plateau.restore(damaged), ValueError);
  CHECK(plateau.factor() == 0.25);
}

TEST_CASE("the non-monotonic trigger compares with the best before the last losses") {
  NonMonotonicTrigger trigger(2);
  for (const double loss : {5.0, 4.0, 3.0, 3.5, 3.2}) CHECK_FALSE(trigger.update(loss));
  NonMonotonicTrigger resumed(2);
  resumed.restore(trigger.state());
  CHECK(resumed.update(3.1));  // the best but for the last two is 3.0
  CHECK(resumed.update(1.0));  // and so it stays
  CHECK_FALSE(trigger.update(2.9));
  CHECK_THROWS_AS(NonMonotonicTrigger{0}, ValueError);
}
