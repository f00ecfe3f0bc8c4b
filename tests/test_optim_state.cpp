#include <reel/nn/files/safetensors.h>
#include <reel/nn/init.h>
#include <reel/optim/clip.h>

#include <fmt/format.h>

#include <cmath>
#include <type_traits>
#include <utility>

#include "optimizers.h"

using namespace reel;
using namespace reel::testing;

namespace {

// Two steps, a move, three more: the bits of five steps without a move, and the same state.
template <class O, class Options>
void check_moves(const Options& options) {
  const auto steps = [](O& optimizer, const Params& params, std::uint64_t begin,
                        std::uint64_t end) {
    for (std::uint64_t seed = begin; seed < end; ++seed) optimizer.step(gradients_of(params, seed));
  };
  for (const bool assigned : {false, true}) {
    const Params stayed_params = two_parameters(), moved_params = two_parameters();
    O stayed(stayed_params, options), moving(moved_params, options);
    CAPTURE(stayed.name());
    CAPTURE(assigned);
    steps(stayed, stayed_params, 0, 5);
    steps(moving, moved_params, 0, 2);
    moving.set_learning_rate(moving.learning_rate());
    const Params others = two_parameters();
    Options other_options = options;
    other_options.learning_rate = 7;
    O target(others, other_options);
    steps(target, others, 10, 11);  // what it remembers has to go
    if (assigned) target = std::move(moving);
    O moved = assigned ? std::move(target) : std::move(moving);
    const std::vector<double> of_others = others["u"].value().to_vector();
    CHECK(moved.learning_rate() == options.learning_rate);
    CHECK(moved.name() == stayed.name());
    steps(moved, moved_params, 2, 5);
    check_same_bits(stayed_params, moved_params);
    CHECK(others["u"].value().to_vector() == of_others);
    const auto state = moved.state().tensors;
    for (const auto& [name, value] : stayed.state().tensors)
      CHECK(same_bits(value, state.at(name)));
    const auto step_again = [&] { moving.step(gradients_of(moved_params, 9)); };  // NOLINT
    CHECK(error_of<ValueError>(step_again)
              .starts_with("an optimizer that was moved from takes no steps (" __FILE__));
    check_same_bits(stayed_params, moved_params);
  }
}

}  // namespace

TEST_CASE("a moved optimizer goes on with the bits of one that was not moved") {
  check_moves<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .nesterov = true});
  check_moves<Sgd>(SgdOptions{.learning_rate = 0.1, .weight_decay = 0.1});
  check_moves<Adam>(AdamOptions{.learning_rate = 0.1, .weight_decay = 0.1});
  check_moves<NAdam>(
      NAdamOptions{.learning_rate = 0.1, .groups = {{.params = "*", .learning_rate_factor = 2}}});
  check_moves<AdamW>(AdamWOptions{.learning_rate = 0.1, .weight_decay = 0.1});
  check_moves<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .momentum = 0.9});
}

TEST_CASE("an optimizer is moved as what it is, never as its base") {
  // Adam's formula on what Sgd remembers would reach beyond it.
  CHECK(std::is_nothrow_move_constructible_v<Adam>);
  CHECK(std::is_move_assignable_v<Sgd>);
  CHECK_FALSE(std::is_move_assignable_v<Optimizer>);
  CHECK_FALSE(std::is_copy_constructible_v<Sgd>);
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
      second->step(gradients_of(resumed, 99));  // a history that restoring has to discard
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
    const nn::NamedTensors initial = make_optimizer(two_parameters())->state();
    for (const auto& [name, saved] : state.tensors) CHECK(same_bits(saved, initial[name]));

    const void* place = w.value().buffer().data();
    optimizer->step(gradients);
    CHECK(w.value().buffer().data() == place);  // not shared: in-place
  }
}

TEST_CASE("restore refuses what is not its state, and changes nothing") {
  const Params params = two_parameters();
  Adam adam(params);
  adam.step(gradients_of(params, 0));
  const nn::NamedTensors good = adam.state();
  const auto refused = [&](const char* message, auto damage) {
    nn::NamedTensors bad = Adam(params).state();
    damage(bad.tensors);
    CHECK_THROWS_WITH_AS(adam.restore(bad), doctest::Contains(message), ValueError);
    CHECK_THROWS_WITH_AS(adam.restore(bad), doctest::Contains(" (" __FILE__ ":"), ValueError);
    for (const auto& [name, value] : adam.state().tensors)
      CHECK(value.to_vector() == good[name].to_vector());
  };
  refused("adam: the state has no entry adam.v.w; is it of another optimizer or another model?",
          [](auto& entries) { entries.erase("adam.v.w"); });
  refused(
      "adam: the state has an unexpected entry adam.v.x; is it of another optimizer or another "
      "model?",
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
  for (const auto& [entry, value] : {std::pair("adam.m.w", not_a_number),
                                     {"adam.m.w", -infinity},
                                     {"adam.v.w", infinity},
                                     {"adam.v.w", -1.0}})
    refused(fmt::format("adam: entry {} of the state holds {}, which is impossible in training",
                        entry, value)
                .c_str(),
            [&, name = entry, number = value](auto& entries) {
              Tensor moment = zeros({3, 7});
              moment.edit<float>()[20] = static_cast<float>(number);
              entries[name] = moment;
            });
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
  const ThreadsScope restore;
  // Enough elements that a step is split, in arrays larger than a piece.
  const auto run = [](int n, const auto& make) {
    set_threads(n);
    const Params params(3);
    params.create("a", {1, 70001}, nn::init::normal(1));
    params.create("b", {3, 1}, nn::init::normal(1));
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
  for (const Make& make_optimizer : all_optimizers) {
    const auto [norm, params] = run(1, make_optimizer);
    CAPTURE(make_optimizer(two_parameters())->name());
    for (int n : {2, 3, 4, 8}) {
      const auto again = run(n, make_optimizer);
      CHECK(again.first == norm);
      for (const Param& p : params.list())
        CHECK(same_bits(p.value(), again.second[p.name()].value()));
    }
  }
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
  CHECK_THROWS_WITH_AS(
      clip_by_norm(gradients, 0),
      doctest::Contains("clip_by_norm: max_norm is 0, but has to be positive (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_WITH_AS(
      clip_by_norm(gradients, not_a_number),
      doctest::Contains("clip_by_norm: max_norm is nan, but has to be positive (" __FILE__ ":"),
      ValueError);
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
    CHECK_THROWS_WITH_AS(
        clip_by_value(gradients, -1),
        doctest::Contains("clip_by_value: limit is -1, but has to be positive (" __FILE__ ":"),
        ValueError);
  }
}
