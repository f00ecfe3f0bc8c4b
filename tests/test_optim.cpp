#include <reel/nn/files/safetensors.h>
#include <reel/nn/init.h>
#include <reel/optim/adam.h>
#include <reel/optim/adamw.h>
#include <reel/optim/clip.h>
#include <reel/optim/rmsprop.h>
#include <reel/optim/schedule.h>
#include <reel/optim/sgd.h>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "golden_directory.h"
#include "testing.h"

using namespace reel;
using namespace reel::optim;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

using Make = std::function<std::unique_ptr<Optimizer>(const Params&)>;

template <class O, class Options>
Make make(const Options& options) {
  return [=](const Params& params) { return std::make_unique<O>(params, options); };
}

// One of each update formula.
const std::vector<Make> all_optimizers = {
    make<Sgd>(SgdOptions{.learning_rate = 0.1, .weight_decay = 0.01}),
    make<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.9}),
    make<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .nesterov = true}),
    make<Adam>(AdamOptions{.learning_rate = 0.1}),
    make<AdamW>(AdamWOptions{.learning_rate = 0.1}),
    make<RmsProp>(RmsPropOptions{.learning_rate = 0.1}),
    make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .momentum = 0.9}),
};

// A parameter `name` with the given numbers.
Param create(const Params& params, std::string_view name, std::initializer_list<double> numbers) {
  const std::vector<double> values(numbers);
  return params.create(name, {static_cast<Index>(values.size())},
                       [&](Rng&, const Shape& shape, DType dtype) {
                         return tensor(shape, std::span(values), dtype);
                       });
}

// Two parameters of normal numbers, long enough for vector lanes and a tail.
Params two_parameters(DType dtype = f32) {
  const Params params(1, dtype);
  for (const char* name : {"u", "w"})
    params.create(name, {3, 7}, [](Rng& rng, const Shape& shape, DType type) {
      return rng.normal(shape, 0, 1, type);
    });
  return params;
}

Gradients gradients_of(const Params& params, std::uint64_t seed) {
  Gradients gradients(params);
  Rng rng(seed);
  for (const Param& param : params.list())
    gradients.set(*param.entry(), rng.normal(param.shape(), 0, 1, param.dtype()));
  return gradients;
}

Gradients gradient_of(const Params& params, const Param& param,
                      std::initializer_list<double> numbers) {
  Gradients gradients(params);
  gradients.set(*param.entry(), tensor(param.shape(), numbers, param.dtype()));
  return gradients;
}

// Row `i` of a stack of tensors.
Tensor row(const Tensor& stack, Index i, const Shape& shape) {
  const auto all = stack.values<double>();
  return tensor(shape,
                all.subspan(static_cast<std::size_t>(i * shape.size()),
                            static_cast<std::size_t>(shape.size())),
                f64);
}

double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  REQUIRE(x.size() == y.size());
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

void check_same_bits(const Params& a, const Params& b) {
  for (const Param& param : a.list())
    CHECK(param.value().to_vector() == b[param.name()].value().to_vector());
}

}  // namespace

TEST_CASE("optimizers follow PyTorch's trajectories") {
  const nn::NamedTensors golden = nn::load_safetensors(REEL_GOLDEN_DIR "/optim.safetensors");
  const std::vector<std::pair<std::string, Make>> optimizers = {
      {"sgd", make<Sgd>(SgdOptions{.learning_rate = 0.5})},
      {"momentum", make<Sgd>(SgdOptions{.learning_rate = 0.5, .momentum = 0.9})},
      {"nesterov", make<Sgd>(SgdOptions{.learning_rate = 0.5, .momentum = 0.9, .nesterov = true})},
      {"adam", make<Adam>(AdamOptions{.learning_rate = 0.1})},
      {"adamw", make<AdamW>(AdamWOptions{.learning_rate = 0.1})},
      {"rmsprop", make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .alpha = 0.95})}};
  for (const auto& item : optimizers) {
    const std::string& name = item.first;
    CAPTURE(name);
    const nn::NamedTensors trace = golden.part(name + ".");
    const Params params(0, f64);
    const auto start = [&](std::string_view parameter, const Shape& shape) {
      params.create(parameter, shape,
                    [&](Rng&, const Shape&, DType) { return row(trace[parameter], 0, shape); });
    };
    start("w", {4, 1});
    start("b", {1});

    const auto optimizer = item.second(params);
    for (Index step = 0; step < 5; ++step) {
      Gradients gradients(params);
      for (const Param& param : params.list())
        gradients.set(*param.entry(), row(trace["grad." + param.name()], step, param.shape()));
      optimizer->step(gradients);
      for (const Param& param : params.list()) {
        CAPTURE(step);
        CHECK(distance(param.value(), row(trace[param.name()], step + 1, param.shape())) < 1e-14);
      }
    }
  }
}

TEST_CASE("settings that the golden file leaves out give PyTorch's values too") {
  // Three steps from {1, -2}; the numbers were computed with PyTorch 1.13 in f64.
  const auto after_three_steps = [](const Make& make_optimizer) {
    const Params params(0, f64);
    const Param p = create(params, "p", {1, -2});
    const auto optimizer = make_optimizer(params);
    optimizer->step(gradient_of(params, p, {0.5, -0.25}));
    optimizer->step(gradient_of(params, p, {-1.0, 0.125}));
    optimizer->step(gradient_of(params, p, {2.0, 0.75}));
    return p.value();
  };
  const auto check = [&](const Make& make_optimizer, double first, double second) {
    const Tensor p = after_three_steps(make_optimizer);
    CHECK(std::abs(p.at({0}) - first) < 1e-14);
    CHECK(std::abs(p.at({1}) - second) < 1e-14);
  };
  SgdOptions sgd{.learning_rate = 0.1, .weight_decay = 0.01};
  check(make<Sgd>(sgd), 0.8470029490000001, -2.056543473);
  sgd.momentum = 0.9;
  check(make<Sgd>(sgd), 0.848984749, -2.019872073);
  sgd.nesterov = true;
  check(make<Sgd>(sgd), 0.7111684581909999, -2.074541955807);
  check(make<RmsProp>(RmsPropOptions{.learning_rate = 0.1}), 0.021204008561932497,
        -2.387081519441417);
  check(make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .momentum = 0.9}), -0.883005055717896,
        -1.0811939878401495);
  check(make<AdamW>(AdamWOptions{.learning_rate = 0.1, .weight_decay = 0.1}), 0.8665676891558989,
        -1.8689028244520205);
}

TEST_CASE("the first steps of Adam and SGD, by hand") {
  const Params params(0, f64);
  const Param p = create(params, "p", {1, 1});
  Adam adam(params, {.learning_rate = 0.25, .epsilon = 0});
  adam.step(gradient_of(params, p, {3, -0.001}));  // whatever the size, the first step is lr
  CHECK(p.value().at({0}) == doctest::Approx(0.75).epsilon(1e-14));
  CHECK(p.value().at({1}) == doctest::Approx(1.25).epsilon(1e-14));

  p.entry()->value = tensor({2}, {1, 1}, f64);
  Sgd sgd(params, {.learning_rate = 0.5});
  sgd.step(gradient_of(params, p, {4, -1}));
  CHECK(p.value().to_vector() == std::vector<double>{-1, 1.5});
}

TEST_CASE("a restored optimizer goes on with the bits of the one that never stopped") {
  for (const DType dtype : {f32, f64})
    for (const Make& make_optimizer : all_optimizers) {
      const Params straight = two_parameters(dtype);
      const auto first = make_optimizer(straight);
      CAPTURE(first->name());
      for (std::uint64_t seed = 0; seed < 3; ++seed) first->step(gradients_of(straight, seed));

      const nn::NamedTensors saved = first->state();
      const Params resumed = straight.clone();
      const auto second = make_optimizer(resumed);
      second->step(gradients_of(resumed, 99));  // a past that restoring has to forget
      nn::load_params(nn::from_params(straight), resumed);
      second->restore(saved);
      for (std::uint64_t seed = 3; seed < 6; ++seed) {
        first->step(gradients_of(straight, seed));
        second->step(gradients_of(resumed, seed));
      }
      check_same_bits(straight, resumed);
      CHECK(saved[first->name() + ".steps.u"].item() == 3);
      CHECK(first->state()[first->name() + ".steps.u"].item() == 6);
    }
}

TEST_CASE("the state has a name for everything") {
  const Params params = two_parameters();
  const auto names = [](const Optimizer& optimizer) {
    std::vector<std::string> names;
    for (const auto& [name, value] : optimizer.state().tensors) names.push_back(name);
    return names;
  };
  CHECK(names(Sgd(params)) == std::vector<std::string>{"sgd.steps.u", "sgd.steps.w"});
  CHECK(names(Sgd(params, {.momentum = 0.5})) ==
        std::vector<std::string>{"sgd.m.u", "sgd.m.w", "sgd.steps.u", "sgd.steps.w"});
  CHECK(names(AdamW(params)) == std::vector<std::string>{"adamw.m.u", "adamw.m.w", "adamw.steps.u",
                                                         "adamw.steps.w", "adamw.v.u",
                                                         "adamw.v.w"});
}

TEST_CASE("a parameter without a gradient stays as it is, and so does its state") {
  for (const Make& make_optimizer : all_optimizers) {
    const Params params = two_parameters();
    const auto optimizer = make_optimizer(params);
    CAPTURE(optimizer->name());
    optimizer->step(gradients_of(params, 0));
    const Param u = params["u"], w = params["w"];
    const nn::NamedTensors state = optimizer->state();
    const std::vector<double> u_before = u.value().to_vector(), w_before = w.value().to_vector();
    const std::uint64_t version = u.entry()->version;

    Gradients only_w(params);
    only_w.set(*w.entry(), ones(w.shape()));
    optimizer->step(only_w);
    CHECK(u.value().to_vector() == u_before);
    CHECK(u.entry()->version == version);
    CHECK(w.value().to_vector() != w_before);
    for (const auto& [name, value] : optimizer->state().tensors)
      CHECK((value.to_vector() == state[name].to_vector()) == name.ends_with(".u"));
  }
}

TEST_CASE("handles taken before a step keep their numbers, and the version counts the step") {
  for (const Make& make_optimizer : all_optimizers) {
    const Params params = two_parameters();
    const auto optimizer = make_optimizer(params);
    CAPTURE(optimizer->name());
    const Param w = params["w"];
    const Gradients gradients = gradients_of(params, 0);
    const Tensor value = w.value(), gradient = gradients[w];
    const nn::NamedTensors state = optimizer->state();
    const std::vector<double> before = value.to_vector(), g = gradient.to_vector();
    const std::uint64_t version = w.entry()->version;

    optimizer->step(gradients);
    CHECK(w.entry()->version == version + 1);
    CHECK(value.to_vector() == before);
    CHECK(gradient.to_vector() == g);
    CHECK(w.value().to_vector() != before);
    for (const auto& [name, saved] : state.tensors)
      for (double x : saved.to_vector()) CHECK(x == 0);

    const void* place = w.value().buffer().data();
    optimizer->step(gradients);
    CHECK(w.value().buffer().data() == place);  // nobody else looks: in place
  }
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
  CHECK_THROWS_WITH_AS(first.step(Gradients(params / "b")),
                       "sgd: these gradients are of another store: parameter a.x is not in it; "
                       "take them with respect to the parameters that the optimizer was given",
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
  CHECK_THROWS_WITH_AS(sgd.set_learning_rate(-1),
                       "sgd: learning_rate is -1, but has to be in [0, inf)", ValueError);
  CHECK(sgd.learning_rate() == 0.25);
}

TEST_CASE("options out of range are refused") {
  const Params params = two_parameters();
  CHECK_NOTHROW(Adam(params, {.learning_rate = 0, .beta1 = 0, .beta2 = 0, .epsilon = 0}));
  CHECK_THROWS_WITH_AS(Adam(params, {.learning_rate = -1e-3}),
                       "adam: learning_rate is -0.001, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(Adam(params, {.learning_rate = not_a_number}),
                       "adam: learning_rate is nan, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(Adam(params, {.learning_rate = infinity}),
                       "adam: learning_rate is inf, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(Adam(params, {.beta1 = 1}), "adam: beta1 is 1, but has to be in [0, 1)",
                       ValueError);
  CHECK_THROWS_WITH_AS(Adam(params, {.beta2 = -0.1}),
                       "adam: beta2 is -0.1, but has to be in [0, 1)", ValueError);
  CHECK_THROWS_WITH_AS(Adam(params, {.epsilon = -1}),
                       "adam: epsilon is -1, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(AdamW(params, {.weight_decay = -1}),
                       "adamw: weight_decay is -1, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(Sgd(params, {.momentum = -0.5}),
                       "sgd: momentum is -0.5, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(Sgd(params, {.weight_decay = -0.5}),
                       "sgd: weight_decay is -0.5, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(Sgd(params, {.nesterov = true}),
                       "sgd: nesterov needs a momentum; set one, such as 0.9", ValueError);
  CHECK_THROWS_WITH_AS(RmsProp(params, {.alpha = 1.5}),
                       "rmsprop: alpha is 1.5, but has to be in [0, 1)", ValueError);
  CHECK_THROWS_WITH_AS(RmsProp(params, {.epsilon = -1}),
                       "rmsprop: epsilon is -1, but has to be in [0, inf)", ValueError);
  CHECK_THROWS_WITH_AS(RmsProp(params, {.momentum = not_a_number}),
                       "rmsprop: momentum is nan, but has to be in [0, inf)", ValueError);
}

TEST_CASE("an optimizer wants the parameters of its own store, all of them") {
  CHECK_THROWS_WITH_AS(
      Adam(Params{}),
      "adam: there are no parameters to train; construct the model before the optimizer",
      ValueError);

  const Params params = two_parameters(), copy = params.clone();
  Adam adam(params);
  const std::vector<double> before = params["u"].value().to_vector();
  CHECK_THROWS_WITH_AS(adam.step(gradients_of(copy, 0)),
                       "adam: these gradients are of another store: parameter u is not in it; take "
                       "them with respect to the parameters that the optimizer was given",
                       ValueError);
  CHECK_THROWS_AS(adam.step(Gradients{}), ValueError);

  create(params, "late", {1});
  CHECK_THROWS_WITH_AS(adam.step(gradients_of(params, 0)),
                       "adam: 1 parameters were created after the optimizer; construct the whole "
                       "model before it",
                       ValueError);
  CHECK(params["u"].value().to_vector() == before);
  CHECK(adam.state()["adam.steps.u"].item() == 0);
}

TEST_CASE("restore refuses what is not its state, and changes nothing") {
  const Params params = two_parameters();
  Adam adam(params);
  adam.step(gradients_of(params, 0));
  const nn::NamedTensors good = adam.state();
  const auto refused = [&](const char* message, auto damage) {
    nn::NamedTensors bad = Adam(params).state();
    damage(bad.tensors);
    CHECK_THROWS_WITH_AS(adam.restore(bad), message, ValueError);
    for (const auto& [name, value] : adam.state().tensors)
      CHECK(value.to_vector() == good[name].to_vector());
  };
  refused("adam: the state has no entry adam.v.w; is it of another optimizer or another model?",
          [](auto& entries) { entries.erase("adam.v.w"); });
  refused(
      "adam: the state has a foreign entry adam.v.x; is it of another optimizer or another model?",
      [](auto& entries) { entries["adam.v.x"] = zeros({3}); });
  refused("adam: the state has no entry adam.steps.u; is it of another optimizer or another model?",
          [&](auto& entries) { entries = Sgd(params).state().tensors; });
  refused(
      "adam: entry adam.v.w of the state is f32 [3], but has to be f32 [3, 7]; is it of another "
      "model?",
      [](auto& entries) { entries["adam.v.w"] = zeros({3}); });
  refused(
      "adam: entry adam.m.w of the state is f64 [3, 7], but has to be f32 [3, 7]; is it of another "
      "model?",
      [](auto& entries) {
        entries["adam.m.w"] = zeros({3, 7}, f64);
      });
  refused(
      "adam: entry adam.m.w of the state is undefined [], but has to be f32 [3, 7]; is it of "
      "another model?",
      [](auto& entries) { entries["adam.m.w"] = Tensor(); });
  for (double count : {-1.0, 1.5, infinity, not_a_number})
    refused(fmt::format("adam: entry adam.steps.w of the state is {}, but has to be a count", count)
                .c_str(),
            [&](auto& entries) { entries["adam.steps.w"] = scalar(count, f64); });
}

TEST_CASE("a step asks the heap for nothing") {
  for (const Make& make_optimizer : all_optimizers) {
    const Params params = two_parameters();
    const auto optimizer = make_optimizer(params);
    const Gradients gradients = gradients_of(params, 0);
    optimizer->step(gradients);
    const auto before = pool::statistics();
    for (int i = 0; i < 3; ++i) optimizer->step(gradients);
    CHECK(pool::statistics().heap_allocations == before.heap_allocations);
    CHECK(pool::statistics().cached_bytes == before.cached_bytes);
  }
}

TEST_CASE("norm, scaling and every optimizer give the same bits on any number of threads") {
  const testing::ThreadsScope restore;
  // Enough numbers that a step is split, in arrays that no piece fits.
  const auto run = [](int n, const auto& make) {
    set_threads(n);
    const Params params(3);
    params.create("a", {70001}, nn::init::normal(1));
    params.create("b", {3}, nn::init::normal(1));
    params.create("c", {33, 1000}, nn::init::normal(1));
    const auto optimizer = make(params);
    double norm = 0;
    for (std::uint64_t i = 0; i < 3; ++i) {
      Gradients gradients(params);
      params.each([&](const std::shared_ptr<ParamEntry>& entry) {
        gradients.set(*entry, Rng(i + 5).normal(entry->value.shape()));
      });
      norm = optim::clip_by_norm(gradients, 100);
      optimizer->step(gradients);
    }
    return std::pair(norm, params);
  };
  const auto check = [&](const auto& make) {
    const auto [norm, params] = run(1, make);
    for (int n : {2, 3, 4, 8}) {
      const auto again = run(n, make);
      CHECK(again.first == norm);
      for (const Param& p : params.list())
        CHECK(testing::same_bits(p.value(), again.second[p.name()].value()));
    }
  };
  check([](const Params& p) { return std::make_unique<optim::Sgd>(p); });
  check([](const Params& p) {
    return std::make_unique<optim::Sgd>(p, optim::SgdOptions{.momentum = 0.9, .nesterov = true});
  });
  check([](const Params& p) { return std::make_unique<optim::Adam>(p); });
  check([](const Params& p) { return std::make_unique<optim::AdamW>(p); });
  check([](const Params& p) { return std::make_unique<optim::RmsProp>(p); });
}

TEST_CASE("the norm counts every number once") {
  const Params params(1);
  const Index sizes[] = {1, 15, 16, 17, 32768, 32769, 100003};
  for (Index size : sizes) params.create("p" + std::to_string(size), {size}, nn::init::constant(0));
  Gradients gradients(params);
  double squares = 0;
  params.each([&](const std::shared_ptr<ParamEntry>& entry) {
    const Tensor g =
        Rng(static_cast<std::uint64_t>(entry->value.size())).normal(entry->value.shape());
    for (float x : g.values<float>()) squares += static_cast<double>(x) * static_cast<double>(x);
    gradients.set(*entry, g);
  });
  CHECK(gradients.norm() == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
  gradients *= 2;
  CHECK(gradients.norm() == doctest::Approx(2 * std::sqrt(squares)).epsilon(1e-12));
}

TEST_CASE("clip_by_norm scales as PyTorch does") {
  const Params params(0, f64);
  const Param a = create(params, "a", {0}), b = create(params, "b", {0});
  Gradients gradients(params);
  const Tensor three = tensor({1}, {3}, f64);
  gradients.set(*a.entry(), three);
  gradients.set(*b.entry(), tensor({1}, {4}, f64));

  CHECK(clip_by_norm(gradients, 6) == 5);
  CHECK(clip_by_norm(gradients, infinity) == 5);
  CHECK(gradients[a].item() == 3);
  CHECK(clip_by_norm(gradients, 1) == 5);
  CHECK(gradients[a].item() == doctest::Approx(0.599999880000024).epsilon(1e-15));
  CHECK(gradients[b].item() == doctest::Approx(0.799999840000032).epsilon(1e-15));
  CHECK(three.item() == 3);

  for (double bad : {infinity, not_a_number}) {
    gradients.set(*a.entry(), tensor({1}, {bad}, f64));
    const double b_before = gradients[b].item();
    CHECK_FALSE(std::isfinite(clip_by_norm(gradients, 0.1)));
    CHECK(gradients[b].item() == b_before);
  }
  CHECK_THROWS_WITH_AS(clip_by_norm(gradients, 0),
                       "clip_by_norm: max_norm is 0, but has to be positive", ValueError);
  CHECK_THROWS_WITH_AS(clip_by_norm(gradients, not_a_number),
                       "clip_by_norm: max_norm is nan, but has to be positive", ValueError);
}

TEST_CASE("clip_by_value moves numbers into the interval") {
  for (const DType dtype : {f32, f64}) {
    const Params params(0, dtype);
    const Param p = create(params, "p", {0, 0, 0, 0, 0});
    Gradients gradients = gradient_of(params, p, {-3, -0.5, 0.25, 7, not_a_number});
    clip_by_value(gradients, 0.5);
    const std::vector<double> clipped = gradients[p].to_vector();
    CHECK(std::vector(clipped.begin(), clipped.end() - 1) ==
          std::vector<double>{-0.5, -0.5, 0.25, 0.5});
    CHECK(std::isnan(clipped.back()));
    CHECK_THROWS_WITH_AS(clip_by_value(gradients, -1),
                         "clip_by_value: limit is -1, but has to be positive", ValueError);
  }
}

TEST_CASE("ExponentialDecay is char-rnn's schedule") {
  const ExponentialDecay schedule{.learning_rate = 2e-3, .factor = 0.97, .after = 10};
  double rate = 2e-3;
  for (int epoch = 1; epoch <= 50; ++epoch) {
    CHECK(schedule.at(epoch) == doctest::Approx(rate).epsilon(1e-13));
    if (epoch >= 10) rate *= 0.97;  // at the end of an epoch, as char-rnn does it
  }
  CHECK(ExponentialDecay{.learning_rate = 1, .factor = 0.5, .after = 0}.at(1) == 1);
  CHECK(ExponentialDecay{.learning_rate = 1, .factor = 0.5, .after = 0}.at(3) == 0.25);
  CHECK_THROWS_WITH_AS(schedule.at(0), "ExponentialDecay: epoch is 0, but has to be 1 or more",
                       ValueError);
  CHECK_THROWS_WITH_AS(ExponentialDecay{.learning_rate = -1}.at(1),
                       "ExponentialDecay: learning_rate is -1, but has to be 0 or more",
                       ValueError);
}

TEST_CASE("StepDecay changes the rate after every few epochs") {
  const StepDecay schedule{.learning_rate = 1, .factor = 0.5, .every = 2};
  std::vector<double> rates;
  for (int epoch = 1; epoch <= 5; ++epoch) rates.push_back(schedule.at(epoch));
  CHECK(rates == std::vector<double>{1, 1, 0.5, 0.5, 0.25});
  CHECK_THROWS_WITH_AS(StepDecay{.every = 0}.at(1),
                       "StepDecay: every is 0, but has to be 1 or more", ValueError);
  CHECK_THROWS_WITH_AS(StepDecay{.factor = not_a_number}.at(1),
                       "StepDecay: factor is nan, but has to be 0 or more", ValueError);
}
