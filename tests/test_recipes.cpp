// The code of docs/recipes.md, compiled and run. The page quotes the lines between the markers.
#include <doctest/doctest.h>

#include <thread>

#include <reel/reel.h>

#include "testing.h"

using namespace reel;

namespace {

// A small model and its data, for recipes about training.
struct Setup {
  Params params{1};
  nn::Gru gru{params / "gru", 3, 8};
  nn::Linear head{params / "head", 8, 2};
  Rng rng{2};
  Tensor x = rng.normal({6, 4, 3});
  Tensor targets = tensor({4}, {0, 1, 1, 0}, i32);

  Tensor loss_of(const Tensor& rows, const Tensor& classes) const {
    return cross_entropy(head(gru(rows).state.h), classes);
  }
};

TEST_CASE("recipe: a classifier of the last state, or of the mean of all") {
  const Setup setup;
  const auto& [params, gru, head, rng, x, targets] = setup;
  const Tensor lengths = tensor({4}, {6, 3, 1, 5}, i32);
  // [classify]
  const auto [y, state] = gru(x, {.lengths = lengths});
  const Tensor by_last = head(state.h);  // of each row's own last step
  // y is 0 in the padding, so a sum over all steps is one over the row's.
  const Tensor mean = sum(y, 0) / expand(lengths.to(f32), 1);
  const Tensor by_mean = head(mean);
  // [/classify]
  CHECK(by_last.shape() == Shape{4, 2});
  CHECK(by_mean.shape() == Shape{4, 2});
  const Tensor last_alone = gru(slice(slice(x, 1, 1, 2), 0, 0, 3)).y;
  CHECK(mean.at({1, 0}) == doctest::Approx(reel::mean(last_alone, 0).at({0, 0})).epsilon(1e-5));
}

TEST_CASE("recipe: gradients of several batches added up") {
  const Setup setup;
  const auto& [params, gru, head, rng, x, targets] = setup;
  const auto loss_of = [&](const Tensor& rows, const Tensor& classes) {
    return setup.loss_of(rows, classes);
  };
  optim::Adam adam(params);
  // [accumulate]
  Gradients total;
  constexpr int parts = 2;
  for (int part = 0; part < parts; ++part) {
    const Tensor rows = slice(x, 1, 2 * part, 2 * part + 2);
    const Tensor classes = slice(targets, 0, 2 * part, 2 * part + 2);
    Tape tape;
    total += tape.gradient(loss_of(rows, classes) / parts, params);
  }
  optim::clip_by_norm(total, 5);  // the whole, not its parts
  // [/accumulate]
  Tape tape;
  const Gradients whole = tape.gradient(loss_of(x, targets), params);
  CHECK(whole.norm() == doctest::Approx(total.norm()).epsilon(1e-5));
  adam.step(total);
}

TEST_CASE("recipe: averaged weights") {
  const Setup setup;
  const auto& [params, gru, head, rng, x, targets] = setup;
  optim::Adam adam(params);
  const auto validate = [&] { return setup.loss_of(setup.x, setup.targets).item(); };
  // [average]
  optim::Ema ema(params, 0.99);
  for (int step = 0; step < 3; ++step) {
    Tape tape;
    adam.step(tape.gradient(setup.loss_of(x, targets), params));
    ema.update();
  }
  const double averaged = nn::functional_call(params, ema.values(), validate);
  // [/average]
  CHECK(averaged != validate());
}

TEST_CASE("recipe: weight decay of matrices alone, and frozen parameters") {
  const Setup setup;
  const auto& [params, gru, head, rng, x, targets] = setup;
  const Tensor before = gru.cell.w_ih.value().copy();
  // [groups]
  optim::AdamW adamw(params, {.weight_decay = 0.1,
                              .decays = nn::matrices_only,
                              .groups = {{.params = "*.w_ih", .frozen = true},
                                         {.params = "head.*", .learning_rate_factor = 10}}});
  // [/groups]
  Tape tape;
  adamw.step(tape.gradient(setup.loss_of(x, targets), params));
  CHECK(testing::same_bits(before, gru.cell.w_ih.value()));
}

TEST_CASE("recipe: two optimizers that take turns") {
  // [two]
  const Params store(1);
  const Params forger = store / "forger", judge = store / "judge";
  const nn::Linear make(forger, 2, 3), score(judge, 3, 1);
  optim::Adam forger_step(forger), judge_step(judge);
  Rng rng(2);
  for (int step = 0; step < 3; ++step) {
    const Tensor real = rng.normal({8, 3}), noise = rng.normal({8, 2});
    {
      const Tensor forged = make(noise);  // without a tape, so no gradient goes there
      Tape tape;
      judge_step.step(tape.gradient(mean(score(forged)) - mean(score(real)), judge));
    }
    Tape tape;
    forger_step.step(tape.gradient(-mean(score(make(noise))), forger));
  }
  // [/two]
  CHECK(make.w.entry()->version == 3);
  CHECK(score.w.entry()->version == 3);
}

TEST_CASE("recipe: truncated backpropagation with k1 and k2") {
  const Params params(1);
  const nn::Gru gru(params / "gru", 3, 8);
  const nn::Linear head(params / "head", 8, 5);
  optim::Adam adam(params);
  Rng rng(2);
  const Tensor x = rng.normal({60, 4, 3}), targets = full({60, 4}, 1, i32);
  int updates = 0;
  // [tbptt]
  optim::Tbptt<nn::HiddenState> tbptt(params, {.k1 = 10, .k2 = 30});
  const auto model = [&](const Tensor& x, const Tensor& targets, const nn::HiddenState& state) {
    const auto [y, next] = gru(x, state);
    return std::pair(cross_entropy(head(y), targets), next);
  };
  tbptt.run({x, targets}, model, [&](Gradients& gradients, double /*loss*/) {
    optim::clip_by_norm(gradients, 5);
    adam.step(gradients);
    ++updates;
  });
  // [/tbptt]
  CHECK(updates == 6);
}

TEST_CASE("recipe: threads of a program over parts of the data") {
  const Setup setup;
  const auto& [params, gru, head, rng, x, targets] = setup;
  // [threads]
  std::vector<Gradients> shares(2);
  std::vector<std::thread> workers;
  for (int part = 0; part < 2; ++part)
    workers.emplace_back([&setup, &shares, part] {
      const Tensor rows = slice(setup.x, 1, 2 * part, 2 * part + 2);
      const Tensor classes = slice(setup.targets, 0, 2 * part, 2 * part + 2);
      Tape tape;  // each thread has its own
      shares[static_cast<std::size_t>(part)] =
          tape.gradient(setup.loss_of(rows, classes) / 2, setup.params);
    });
  for (std::thread& worker : workers) worker.join();
  Gradients total;
  for (const Gradients& share : shares)
    total += share;  // in a fixed order: the same bits each time
  // [/threads]
  Tape tape;
  CHECK(tape.gradient(setup.loss_of(x, targets), params).norm() ==
        doctest::Approx(total.norm()).epsilon(1e-5));
}

TEST_CASE("recipe: a validation in the middle of a step") {
  const Setup setup;
  const auto& [params, gru, head, rng, x, targets] = setup;
  // [no_record]
  Tape tape;
  const Tensor loss = setup.loss_of(x, targets);
  {
    const NoRecord pause;  // this is no part of the step, and costs no memory
    MESSAGE("validation: " << setup.loss_of(x, targets).item());
  }
  const std::size_t records = tape.size();
  // [/no_record]
  CHECK(records > 0);
  tape.gradient(loss, params);
}

}  // namespace
