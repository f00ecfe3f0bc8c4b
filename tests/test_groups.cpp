// Settings of their own for some parameters, selections, and clipping of parts.
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/embedding.h>
#include <reel/nn/functional_call.h>
#include <reel/nn/linear.h>
#include <reel/optim/optimizers.h>

#include <cmath>

#include "optimizers.h"

using namespace reel;
using namespace reel::testing;

namespace {

// embed.w [7, 3], rnn.w_ih, rnn.w_hh, rnn.b, head.w, head.b.
struct Model {
  Params params;
  nn::Embedding embed{params / "embed", 7, 3};
  nn::Lstm rnn{params / "rnn", 3, 4};
  nn::Linear head{params / "head", 4, 7};

  explicit Model(DType dtype = f32) : params(3, dtype) {}
};

std::vector<double> values(const Params& params, const char* name) {
  return params[name].value().to_vector();
}

}  // namespace

TEST_CASE("a group has its own rate, decay and freeze; the first one that selects counts") {
  const Model model(f64), plain(f64), faster(f64);
  const Gradients gradients = gradients_of(model.params, 1);
  Adam adam(model.params, {.learning_rate = 0.1,
                           .weight_decay = 0.5,
                           .groups = {{.params = "embed.*", .frozen = true},
                                      {.params = "*.w_hh", .learning_rate_factor = 10},
                                      {.params = "*.w_?h", .learning_rate_factor = 100},
                                      {.params = "*.b", .weight_decay = 0}}});
  Adam of_plain(plain.params, {.learning_rate = 0.1, .weight_decay = 0.5});
  Adam of_faster(faster.params, {.learning_rate = 1, .weight_decay = 0.5});
  adam.step(gradients);
  of_plain.step(gradients_of(plain.params, 1));
  of_faster.step(gradients_of(faster.params, 1));
  CHECK(values(model.params, "embed.w") == values(Model(f64).params, "embed.w"));
  CHECK(values(model.params, "head.w") == values(plain.params, "head.w"));
  CHECK(values(model.params, "rnn.w_hh") == values(faster.params, "rnn.w_hh"));
  CHECK(values(model.params, "rnn.w_hh") != values(plain.params, "rnn.w_hh"));
  CHECK(values(model.params, "rnn.b") != values(plain.params, "rnn.b"));
  CHECK_FALSE(adam.state().tensors.contains("adam.m.embed.w"));
  CHECK(adam.state().tensors.contains("adam.m.head.w"));
}

TEST_CASE("the learning rate of a group follows the optimizer's") {
  const Params params(0, f64);
  const Param a = create(params, "a", {1}), b = create(params, "b", {1});
  Sgd sgd(params, {.groups = {{.params = "b", .learning_rate_factor = 0.5}}});
  Gradients gradients(params);
  for (const Param& param : params.list()) gradients.set(*param.entry(), ones({1}, f64));
  sgd.set_learning_rate(0.25);
  sgd.step(gradients);
  CHECK(a.value().item() == 0.75);
  CHECK(b.value().item() == 0.875);
}

TEST_CASE("weight decay of matrices alone") {
  const Model model(f64);
  AdamW adamw(model.params,
              {.learning_rate = 0.1, .weight_decay = 0.5, .decays = nn::matrices_only});
  const std::vector<double> weights = values(model.params, "head.w");
  const std::vector<double> biases = values(model.params, "head.b");
  Gradients zero(model.params);
  for (const Param& param : model.params.list())
    zero.set(*param.entry(), zeros(param.shape(), param.dtype()));
  adamw.step(zero);
  CHECK(values(model.params, "head.b") == biases);
  for (std::size_t i = 0; i < weights.size(); ++i)
    CHECK(values(model.params, "head.w")[i] == weights[i] * 0.95);
}

TEST_CASE("patterns of names") {
  const Params params(1);
  const nn::Linear layer(params / "encoder" / "layer2", 2, 2);
  const Param param = params.list().front();
  REQUIRE(param.name() == "encoder.layer2.w");
  const auto selects = [&](const char* pattern) { return nn::Selection(pattern).contains(param); };
  for (const char* pattern :
       {"*", "encoder.*", "*.w", "*er*er*w", "encoder.layer?.w", "*[0-9]*", "*layer[123].*",
        "*[!a-z.]*", "*[^a-z.]*", "encoder.layer2.w**", "*\\.w", "**r2.[]w]*"}) {
    CAPTURE(pattern);
    CHECK(selects(pattern));
  }
  for (const char* pattern :
       {"", "?", "w", "encoder", "*.bias", "encoder.layer[013].*", "*er*er*er*er*w", "*[A-Z]*",
        "*layer[!0-9].*", "encoder.layer2.w?", "*[weight", "Encoder*"}) {
    CAPTURE(pattern);
    CHECK(!selects(pattern));
  }
  const std::string long_pattern = "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b";  // not in exponential time
  CHECK(!selects(long_pattern.c_str()));
}

TEST_CASE("a selection that selects nothing is refused, and says which names there are") {
  const Model model;
  CHECK_THROWS_WITH_AS(
      Sgd(model.params, {.groups = {{.params = "*.w_hj"}}}),
      doctest::Contains("sgd: groups: no parameter has a name like \"*.w_hj\"; there are: "
                        "embed.w, rnn.w_ih, rnn.w_hh, rnn.b, head.w, head.b (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_WITH_AS(
      AdamW(model.params, {.decays = [](const Param& p) { return p.shape().rank() == 4; }}),
      doctest::Contains("adamw: decays: its predicate selects none of the parameters (" __FILE__),
      ValueError);
  CHECK_THROWS_WITH_AS(Sgd(model.params, {.groups = {{.params = "*", .frozen = true}}}),
                       doctest::Contains("sgd: every parameter is frozen (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_WITH_AS(
      Sgd(model.params, {.groups = {{.params = "*", .learning_rate_factor = -1}}}),
      doctest::Contains("sgd: learning_rate_factor of a group is -1, but has to be in [0, inf)"),
      ValueError);
  CHECK_THROWS_WITH_AS(Sgd(model.params, {.groups = {{.params = "*", .max_norm = 0}}}),
                       doctest::Contains("sgd: max_norm of a group is 0, but has to be positive"),
                       ValueError);
  Gradients gradients = gradients_of(model.params, 0);
  CHECK_THROWS_WITH_AS(clip_by_norm(gradients, 1, "rn.*"),
                       doctest::Contains("clip_by_norm: no parameter has a name like \"rn.*\""),
                       ValueError);
}

TEST_CASE("a group is clipped by its own norm, and counts how often") {
  const Model model(f64), clipped(f64);
  const Gradients gradients = gradients_of(model.params, 1);
  Gradients by_hand = gradients_of(clipped.params, 1);
  const double norm = clip_by_norm(by_hand, 2, "rnn.*");
  Sgd sgd(model.params, {.learning_rate = 0.1, .groups = {{.params = "rnn.*", .max_norm = 2}}});
  Sgd plain(clipped.params, {.learning_rate = 0.1});
  sgd.step(gradients);
  plain.step(by_hand);
  for (const Param& param : model.params.list())
    CHECK(distance(param.value(), clipped.params[param.name()].value()) < 1e-15);
  CHECK(sgd.clip_count(0).clipped == 1);
  CHECK(sgd.clip_count(0).largest_norm == norm);
  Gradients small = gradients_of(model.params, 2);
  small *= 1e-3;
  sgd.step(small);
  CHECK(sgd.clip_count(0).steps == 2);
  CHECK(sgd.clip_count(0).share() == 0.5);
}

TEST_CASE("clipping of some parameters leaves the others alone") {
  const Model model(f64);
  Gradients gradients = gradients_of(model.params, 1);
  const Gradients before = gradients_of(model.params, 1);
  const double norm = clip_by_norm(gradients, 0.5, "rnn.*");
  double square = 0;
  gradients.each([&](const auto& entry, const Tensor& gradient) {
    if (!entry->name.starts_with("rnn.")) {
      CHECK(same_bits(gradient, before[Param(entry)]));
      return;
    }
    for (double x : gradient.to_vector()) square += x * x;
    CHECK(distance(gradient * (norm / 0.5), before[Param(entry)]) < 1e-5);
  });
  CHECK(std::sqrt(square) == doctest::Approx(0.5).epsilon(1e-5));
}

TEST_CASE("a clip that is refused, and a step that is, leave everything as it was") {
  const Model model(f64);
  Gradients gradients = gradients_of(model.params, 1);
  CHECK_THROWS_AS(clip_by_norm(gradients, 0, "rnn.*"), ValueError);
  for (const Param& param : model.params.list()) CHECK(gradients.find(param) != nullptr);

  Sgd sgd(model.params, {.groups = {{.params = "rnn.*", .max_norm = 1}}});
  const std::uint64_t version = model.params["embed.w"].entry()->version;
  const nn::NamedTensors head = nn::from_params(model.params / "head");
  const auto inside = [&] {
    nn::functional_call(model.params, head, [&] { sgd.step(gradients); });
  };
  CHECK_THROWS_AS(inside(), ValueError);
  CHECK(model.params["embed.w"].entry()->version == version);
  CHECK(sgd.clip_count(0).steps == 0);
  CHECK(sgd.state()["sgd.steps.embed.w"].item() == 0);
}

TEST_CASE("a gradient that is not a number is seen in the weights of every optimizer") {
  for (const OptimizerKind& kind : optimizer_kinds()) {
    CAPTURE(kind.name);
    const Params params(1);
    const Param w = params.create(
        "w", {2, 2}, [](Rng&, const Shape& shape, DType dtype) { return ones(shape, dtype); });
    Gradients gradients(params);
    gradients.set(*w.entry(), full({2, 2}, not_a_number));
    kind.make(params, 0.1, {})->step(gradients);
    CHECK(std::isnan(w.value().at({0, 0})));
  }
}

TEST_CASE("clipped steps are counted") {
  ClipCount count;
  CHECK(count.share() == 0);
  for (const double norm : {0.5, 2.0, 3.5}) count.add(norm, 1);
  CHECK(count.steps == 3);
  CHECK(count.clipped == 2);
  CHECK(count.mean_norm == doctest::Approx(2));
  CHECK(count.largest_norm == 3.5);
}

TEST_CASE("adaptive clipping is by unit, in proportion to its weights") {
  const Params params(0, f64);
  const Param w = params.create("w", {3, 2}, [](Rng&, const Shape& shape, DType dtype) {
    return tensor(shape, {3, 4, 0, 0, 30, 40}, dtype);
  });
  Gradients gradients(params);
  gradients.set(*w.entry(), tensor({3, 2}, {0, 1, 0, 1, 0, 1}, f64));
  // The rows' limits are 0.1 · 5, 0.1 · 0.01 (the least norm) and 0.1 · 50.
  CHECK(clip_adaptive(gradients, 0.1, 0.01) == doctest::Approx(2.0 / 3));
  const std::vector<double> expected = {0, 0.5, 0, 0.001, 0, 1};
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(gradients[w].to_vector()[i] == doctest::Approx(expected[i]));
  gradients.set(*w.entry(), tensor({3, 2}, {not_a_number, 1, 0, 1, 0, 1}, f64));
  clip_adaptive(gradients, 0.1, 0.01);
  CHECK(gradients[w].to_vector()[1] == 1);
  CHECK_THROWS_WITH_AS(
      clip_adaptive(gradients, 0),
      doctest::Contains("clip_adaptive: ratio is 0, but has to be positive (" __FILE__ ":"),
      ValueError);
}

TEST_CASE("rows without a gradient are left alone by lazy_rows, and the others are as without it") {
  for (const DType dtype : {f32, f64})
    for (const OptimizerKind& kind : optimizer_kinds()) {
      if (kind.name == "muon" || kind.name == "adafactor") continue;  // which take whole matrices
      CAPTURE(kind.name);
      const Model dense(dtype), lazy(dtype);
      const auto of_dense = kind.make(dense.params, 0.1, {});
      const auto of_lazy = kind.make(lazy.params, 0.1, {{.params = "embed.w", .lazy_rows = true}});
      const auto gradients = [](const Params& params, std::uint64_t seed) {
        Gradients all = gradients_of(params, seed);
        std::vector<double> rows = all["embed.w"].to_vector();
        std::fill_n(rows.begin() + 3, 3, 0.0);  // row 1
        all.set(*params["embed.w"].entry(),
                tensor({7, 3}, std::span<const double>(rows), params.dtype()));
        return all;
      };
      for (std::uint64_t seed = 0; seed < 3; ++seed) {
        of_dense->step(gradients(dense.params, seed));
        of_lazy->step(gradients(lazy.params, seed));
      }
      CHECK(values(dense.params, "rnn.w_hh") == values(lazy.params, "rnn.w_hh"));
      const auto expected = values(dense.params, "embed.w"), rows = values(lazy.params, "embed.w");
      const auto initial = values(Model(dtype).params, "embed.w");
      for (std::size_t i = 0; i < rows.size(); ++i)
        CHECK(rows[i] == (i / 3 == 1 ? initial[i] : expected[i]));
      // It gets a gradient for the first time in the fourth step, with moments of zero.
      of_lazy->step(gradients_of(lazy.params, 9));
      CHECK(values(lazy.params, "embed.w")[3] != initial[3]);
    }
}

TEST_CASE("rows that reach over the pieces of a step are updated once") {
  const auto wide = [](const Params& params) {
    return params.create("w", {5, 20'000}, [](Rng& rng, const Shape& shape, DType dtype) {
      return rng.normal(shape, 0, 1, dtype);
    });
  };
  const Params dense(1), lazy(1);
  const Param w = wide(dense);
  wide(lazy);
  Sgd of_dense(dense, {.learning_rate = 0.1}),
      of_lazy(lazy, {.learning_rate = 0.1, .groups = {{.params = "*", .lazy_rows = true}}});
  std::vector<double> rows = Rng(2).normal(w.shape()).to_vector();
  std::fill_n(rows.begin() + 40'000, 20'000, 0.0);
  const Tensor gradient = tensor(w.shape(), std::span<const double>(rows), f32);
  for (auto* each : {&of_dense, &of_lazy}) {
    const Params& params = each == &of_dense ? dense : lazy;
    Gradients gradients(params);
    gradients.set(*params["w"].entry(), gradient);
    each->step(gradients);
  }
  check_same_bits(dense, lazy);  // without momentum nothing differs
}

TEST_CASE("gradients of micro-batches add up to those of the batch") {
  const Model model(f64);
  Rng rng(5);
  const Tensor x = rng.normal({3, 8, 3}, 0, 1, f64);
  std::vector<std::int32_t> symbols(24);
  for (std::size_t i = 0; i < symbols.size(); ++i)
    symbols[i] = static_cast<std::int32_t>(i * i % 7);
  const Tensor targets = tensor({3, 8}, symbols);
  const auto gradient = [&](Index begin, Index end) {
    Tape tape;
    const auto [y, last] = model.rnn(slice(x, 1, begin, end));
    const Tensor loss = cross_entropy(model.head(y), slice(targets, 1, begin, end));
    return tape.gradient(loss, model.params);
  };
  Gradients total;
  for (Index part = 0; part < 4; ++part) total += gradient(2 * part, 2 * part + 2);
  total *= 0.25;
  const Gradients whole = gradient(0, 8);
  whole.each([&](const auto& entry, const Tensor& expected) {
    CHECK(distance(total[Param(entry)], expected) < 1e-15);
  });
}

TEST_CASE("Muon: directions are nearly orthogonal, gates can be taken one by one") {
  const Model model(f64);
  const auto vectors = [](const Param& p) { return !nn::matrices_only(p); };
  CHECK_THROWS_WITH_AS(Muon(model.params, {}),
                       doctest::Contains("muon: parameter rnn.b of shape [16] is no matrix; freeze "
                                         "it in a group, and give it to another optimizer"),
                       ValueError);
  CHECK_THROWS_WITH_AS(Muon(model.params, {.groups = {{.params = vectors, .frozen = true},
                                                      {.params = "*", .lazy_rows = true}}}),
                       doctest::Contains("muon: lazy_rows of embed.w is not possible"), ValueError);
  const Tensor before = model.params["rnn.w_hh"].value();
  Muon muon(model.params, {.learning_rate = 1,
                           .iterations = 10,
                           .by_block = true,
                           .weight_decay = 0,
                           .groups = {{.params = vectors, .frozen = true}}});
  muon.step(gradients_of(model.params, 1));
  const Tensor moved = before - model.params["rnn.w_hh"].value();
  for (Index gate = 0; gate < 4; ++gate) {
    const Tensor d = slice(moved, 0, 4 * gate, 4 * gate + 4);
    const std::vector<double> gram = matmul(d, transpose(d)).to_vector();
    for (std::size_t i = 0; i < 16; ++i) CHECK(std::abs(gram[i] - (i % 5 == 0 ? 1 : 0)) < 0.6);
  }
}

TEST_CASE("a centered RMSprop with constant gradients has no square root of a negative number") {
  const Params params(0, f32);
  const Param p = create(params, "p", {1});
  RmsProp rmsprop(params, {.learning_rate = 1e-9, .alpha = 0.5, .centered = true});
  for (int i = 0; i < 200; ++i) rmsprop.step(gradient_of(params, p, {0.1}));
  CHECK(std::isfinite(p.value().item()));
}
