// Steps of optimizers, accumulation over windows and memory with gradients by rows.
#include <array>
#include <cmath>
#include <thread>

#include "row_gradients.h"

using namespace reel;
using namespace reel::testing;
using doctest::Contains;

namespace {

void check_same_bits(const Params& a, const Params& b) {
  for (const Param& param : a.list()) CHECK(same_bits(param.value(), b[param.name()].value()));
}

}  // namespace

TEST_CASE("every optimizer makes the same step of gradients by rows and of whole ones") {
  for (const DType dtype : {f32, f64})
    for (const optim::OptimizerKind& kind : optim::optimizer_kinds())
      for (const bool lazy : {false, true}) {
        if (lazy && (kind.name == "muon" || kind.name == "adafactor")) continue;  // whole matrices
        CAPTURE(kind.name);
        CAPTURE(lazy);
        const TwoTables by_rows(dtype), as_whole(dtype);
        const auto vectors = [](const Param& p) { return p.shape().rank() != 2; };
        const std::vector<optim::Group> groups{
            {.params = vectors, .frozen = true},
            {.params = "a", .weight_decay = 0.1, .max_norm = 0.5, .lazy_rows = lazy},
            {.params = "*", .lazy_rows = lazy}};
        const auto of_rows = kind.make(by_rows.params, 0.1, groups),
                   of_whole = kind.make(as_whole.params, 0.1, groups);
        for (std::uint64_t seed = 0; seed < 4; ++seed) {
          const Gradients gradients = by_rows.gradients(seed);
          of_rows->step(gradients);
          CHECK(is_by_rows(gradients, by_rows.a));
          of_whole->step(whole(as_whole.gradients(seed)));
          CHECK(of_rows->clip_count(1).largest_norm == of_whole->clip_count(1).largest_norm);
        }
        check_same_bits(by_rows.params, as_whole.params);
        const nn::NamedTensors state = of_rows->state(), expected = of_whole->state();
        for (const auto& [name, value] : expected.tensors) CHECK(same_bits(value, state[name]));
      }
}

TEST_CASE("lazy_rows leaves a row alone whose gradient is 0 though it was read") {
  const Params params(1);
  const Param w = normal_matrix(params, "w", 6, 3);
  const Tensor before = w.value();
  optim::Adam adam(
      params,
      {.learning_rate = 0.1, .weight_decay = 0.1, .groups = {{.params = "*", .lazy_rows = true}}});
  const Tensor tokens = tensor({5}, {4, 2, 1, 2, 5}, i32);
  const Tensor weights = tensor({5, 1}, {1, 0, 1, 0, 1});  // 2 is padding
  adam.step(gradient_of([&] { return sum(weights * gather_rows(w, tokens)); }, params));
  for (Index row = 0; row < 6; ++row)
    for (Index k = 0; k < 3; ++k)
      CHECK((w.value().at({row, k}) == before.at({row, k})) == (row == 0 || row == 2 || row == 3));
}

TEST_CASE("lazy_rows steps of few rows and of wide ones that reach over the pieces of a step") {
  for (const Index width : {1, 3, 50'000})
    for (const auto& rows : {std::vector<std::int32_t>{}, {0}, {0, 1, 2, 3}, {1, 3}, {0, 2, 3}}) {
      CAPTURE(width);
      const Params dense(1), lazy(1);
      const Param w = normal_matrix(lazy, "w", 4, width);
      normal_matrix(dense, "w", 4, width);
      const auto options = [](bool is_lazy) {
        return optim::SgdOptions{.learning_rate = 0.1,
                                 .groups = {{.params = "*", .lazy_rows = is_lazy}}};
      };
      Gradients gradients(lazy), all(dense);
      gradients.set(*w.entry(), {tensor({std::ssize(rows)}, std::span<const std::int32_t>(rows)),
                                 Rng(2).normal({std::ssize(rows), width})});
      all.set(*dense["w"].entry(), Gradients(gradients)[w]);
      optim::Sgd(lazy, options(true)).step(gradients);
      optim::Sgd(dense, options(false)).step(all);
      check_same_bits(dense, lazy);  // without momentum nothing differs
    }
}

TEST_CASE("a moment that would become infinite is named by its place in the parameter") {
  const Params params(1);
  const Param w = normal_matrix(params, "w", 9, 2);
  optim::Adam adam(params, {.groups = {{.params = "*", .lazy_rows = true}}});
  Gradients gradients(params);
  gradients.set(*w.entry(), {tensor({2}, {3, 7}, i32), tensor({2, 2}, {1, 1, 1, 3e38})});
  const Tensor before = w.value();
  CHECK_THROWS_WITH_AS(adam.step(gradients),
                       Contains("the gradient of w[7, 1] is 3e+38, with which adam.v.w would be "
                                "infinite"),
                       ValueError);
  CHECK(same_bits(w.value(), before));
  // Weight decay counts for the rows that are updated.
  for (const Index row : {0, 7}) {
    const Params large(1);
    Param p = normal_matrix(large, "p", 9, 2);
    p.edit<float>()[static_cast<std::size_t>(2 * row)] = 3e38f;
    optim::Adam decaying(large,
                         {.weight_decay = 1, .groups = {{.params = "*", .lazy_rows = true}}});
    Gradients small(large);
    small.set(*p.entry(), {tensor({2}, {3, 7}, i32), ones({2, 2})});
    if (row == 0)
      decaying.step(small);
    else
      CHECK_THROWS_WITH_AS(decaying.step(small), Contains("the parameter p[7, 0] is 3e+38"),
                           ValueError);
  }
}

TEST_CASE("truncated backpropagation adds up the rows of its tapes") {
  for (const Index k2 : {2, 6, 8}) {
    CAPTURE(k2);
    const Index k1 = 2, steps = 12;
    const Params params(1);
    const nn::Embedding embed(params / "embed", 60, 3);
    const nn::Gru gru(params / "gru", 3, 4);
    Rng rng(3);
    const Tensor tokens = some_rows(rng, {steps, 2}, 60);
    // With a sum of 0 over all of the table its gradient is a whole one; `other` says in which of
    // two tapes there is such a sum.
    const auto gradients = [&](std::array<bool, 2> other) {
      std::vector<Gradients> all;
      std::size_t tapes = 0;
      optim::Tbptt<nn::HiddenState> tbptt(params, {.k1 = k1, .k2 = k2});
      const auto model = [&](const Tensor& x, const nn::HiddenState& state) {
        const auto [y, next] = gru(embed(x), state);
        const Tensor loss = sum(square(y));
        return std::pair(other[tapes++ % 2] ? loss + sum(embed.w * 0) : loss, next);
      };
      tbptt.run({tokens}, model, [&](const Gradients& g, double) { all.push_back(g); });
      return all;
    };
    const std::vector<Gradients> by_rows = gradients({false, false}),
                                 as_whole = gradients({true, true}),
                                 in_turns = gradients({true, false}),
                                 in_other_turns = gradients({false, true});
    REQUIRE(by_rows.size() == 6);
    for (std::size_t i = 0; i < by_rows.size(); ++i) {
      CHECK(is_by_rows(by_rows[i], embed.w));
      CHECK_FALSE(is_by_rows(as_whole[i], embed.w));
      CHECK(same_bits(by_rows[i], as_whole[i]));
      CHECK(same_bits(in_turns[i], as_whole[i]));
      CHECK(same_bits(in_other_turns[i], as_whole[i]));
    }
  }
}

TEST_CASE("a table that is also the state gets both gradients, by rows and as a whole") {
  const auto gradients = [](bool by_rows) {
    const Params params(1);
    const Param w = params.create("w", {3, 2}, nn::init::constant(0.5));
    optim::Tbptt<nn::HiddenState> tbptt(params, {.k1 = 1, .k2 = 2});
    const auto model = [&](const Tensor& x, const nn::HiddenState& state) {
      Tensor loss = sum(gather_rows(w, x)) + (by_rows ? scalar(0.0) : sum(w * 0));
      if (state.h.defined()) loss = loss + sum(square(state.h));
      return std::pair(loss, nn::HiddenState{Tensor(w)});
    };
    std::vector<Gradients> all;
    tbptt.run({tensor({3, 1}, {0, 2, 2}, i32)}, model,
              [&](const Gradients& g, double) { all.push_back(g); });
    return all;
  };
  const std::vector<Gradients> by_rows = gradients(true), as_whole = gradients(false);
  REQUIRE(by_rows.size() == 3);
  for (std::size_t i = 0; i < by_rows.size(); ++i)
    CHECK(same_bits(by_rows[i]["w"], as_whole[i]["w"]));
  CHECK(by_rows[1]["w"].to_vector() == std::vector<double>{1, 1, 1, 1, 2, 2});
}

TEST_CASE("plain gradient descent never makes the whole gradient of a large embedding") {
  std::thread([] {  // with a pool of its own
    const Params params(1);
    const nn::Embedding embed(params / "embed", 33'000, 200);
    optim::Sgd sgd(params, {.learning_rate = 0.1, .groups = {{.params = "*", .max_norm = 1}}});
    const Tensor tokens = tensor({3}, {7, 5, 7}, i32), before = embed.w.value();
    const Gradients gradients = gradient_of([&] { return sum(square(embed(tokens))); }, params);
    const std::size_t peak = pool::statistics().peak_bytes;
    const std::size_t parameter = 33'000 * 200 * sizeof(float);  // `before` makes it copied
    sgd.step(gradients);
    CHECK(pool::statistics().peak_bytes - peak < parameter * 3 / 2);  // two are twice as large
    for (const Index row : {4, 5, 6, 7, 8})
      CHECK((embed.w.value().at({row, 0}) == before.at({row, 0})) == (row != 5 && row != 7));
  })
      .join();
}

TEST_CASE("a step with lazy_rows never makes the whole gradient of a large embedding") {
  std::thread([] {  // with a pool of its own
    const Index symbols = 33'000, size = 200;
    const Params params(1);
    const nn::Embedding embed(params / "embed", symbols, size);
    const nn::Gru gru(params / "gru", size, 8);
    optim::Adam adam(params, {.groups = {{.params = "embed.*", .max_norm = 1, .lazy_rows = true}}});
    Rng rng(1);
    Gradients window;
    const auto gradients = [&] {
      const Tensor tokens = some_rows(rng, {5, 4}, symbols);
      return gradient_of([&] { return sum(square(gru(embed(tokens)).y)); }, params);
    };
    const std::size_t before = pool::statistics().peak_bytes;
    for (int k = 0; k < 2; ++k) window += gradients();
    window *= 0.5;
    CHECK(optim::clip_by_norm(window, 0.5) > 0.5);
    optim::clip_by_value(window, 0.1);
    optim::clip_adaptive(window, 0.1);
    adam.step(window);
    CHECK(pool::statistics().peak_bytes - before < 2'000'000);  // a whole one has 26,400,000
    CHECK(window[embed.w].size() == symbols * size);
    CHECK(pool::statistics().peak_bytes - before > 26'000'000);
  })
      .join();
}
