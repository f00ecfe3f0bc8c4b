#include <doctest/doctest.h>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/attention/additive_attention.h>
#include <reel/nn/attention/dot_attention.h>
#include <reel/nn/attention/general_attention.h>
#include <reel/nn/attention/multi_head_attention.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/files/safetensors.h>
#include <reel/nn/state.h>

#include <cmath>
#include <functional>
#include <limits>

#include "golden_directory.h"
#include "testing.h"

using namespace reel;
using reel::testing::message_without_line;

namespace {

constexpr Index steps = 5, rows = 3, features = 4, queries = 2;

double largest_difference(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  double largest = 0;
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  for (std::size_t i = 0; i < x.size(); ++i) {
    REQUIRE(std::isfinite(x[i]));
    largest = std::max(largest, std::abs(x[i] - y[i]));
  }
  return largest;
}

// Calls f(name, make) for every kind of attention over `features`; make(params) is one.
template <class F>
void each_kind(F f) {
  f("dot", [](const Params&) { return nn::DotAttention(); });
  f("scaled", [](const Params&) { return nn::DotAttention({.scaled = true}); });
  f("general", [](const Params& p) { return nn::GeneralAttention(p / "a", features, features); });
  f("additive",
    [](const Params& p) { return nn::AdditiveAttention(p / "a", features, features, 3); });
  f("heads", [](const Params& p) { return nn::MultiHeadAttention(p / "a", features, 2); });
}

struct Case {
  Params params{7, f64};
  Tensor x = Rng(1).normal({steps, rows, features}, 0, 1, f64);
  Tensor query = Rng(2).normal({queries, rows, features}, 0, 1, f64);
  Tensor lengths = tensor({rows}, {5, 2, 3}, i32);
};

// Row b of a batch, [N, B, ...] -> [N, 1, ...].
Tensor row(const Tensor& x, Index b) { return slice(x, 1, b, b + 1); }

// --- values by their definition ---

using Scores = std::function<double(const double* query, const double* key)>;

// The context of one query over the first `visible` steps of row b, by plain loops.
std::vector<double> expected_context(const Case& c, Index b, const Tensor& query,
                                     const Scores& score, Index visible) {
  std::vector<double> powers, context(features, 0.0);
  double total = 0;
  const auto at = [&](Index t) { return c.x.begin<double>() + (t * rows + b) * features; };
  for (Index t = 0; t < visible; ++t)
    total += powers.emplace_back(std::exp(score(query.begin<double>() + b * features, at(t))));
  for (Index t = 0; t < visible; ++t)
    for (Index f = 0; f < features; ++f)
      context[static_cast<std::size_t>(f)] +=
          powers[static_cast<std::size_t>(t)] / total * at(t)[f];
  return context;
}

template <class A>
void check_definition(const Case& c, const A& attention, const Scores& score) {
  const Tensor query = select(c.query, 0, 1);
  const nn::AttentionResult found = attention(query, attention.memory(c.x, c.lengths));
  CHECK(found.context.shape() == Shape{rows, features});
  CHECK(found.weights.shape() == Shape{rows, steps});
  for (Index b = 0; b < rows; ++b) {
    const Index length = c.lengths.begin<std::int32_t>()[b];
    const std::vector<double> expected = expected_context(c, b, query, score, length);
    for (Index f = 0; f < features; ++f)
      CHECK(found.context.begin<double>()[b * features + f] ==
            doctest::Approx(expected[static_cast<std::size_t>(f)]).epsilon(1e-12));
  }
}

double dot_of(const double* a, const double* b) {
  double sum = 0;
  for (Index i = 0; i < features; ++i) sum += a[i] * b[i];
  return sum;
}

// --- golden values ---

nn::NamedTensors golden_case(const std::string& name) {
  return nn::load_safetensors(REEL_GOLDEN_DIR "/attention.safetensors").part(name + ".");
}

// The parts of PyTorch's in_proj_weight or of its three matrices, and the same of gradients.
Tensors projections(const nn::NamedTensors& torch, const std::string& prefix) {
  if (torch.tensors.contains(prefix + "in_proj_weight"))
    return split(torch[prefix + "in_proj_weight"], 3, 0);
  return {torch[prefix + "q_proj_weight"], torch[prefix + "k_proj_weight"],
          torch[prefix + "v_proj_weight"]};
}

void load(const nn::MultiHeadAttention& attention, const nn::NamedTensors& torch) {
  const Tensors weights = projections(torch, "param.");
  const std::vector<nn::Linear> layers{attention.query, attention.key, attention.value};
  for (std::size_t i = 0; i < 3; ++i) Param(layers[i].w).set(weights[i]);
  Param(attention.output.w).set(torch["param.out_proj.weight"]);
  if (!attention.output.b.defined()) return;
  const Tensors biases = split(torch["param.in_proj_bias"], 3, 0);
  for (std::size_t i = 0; i < 3; ++i) Param(layers[i].b).set(biases[i]);
  Param(attention.output.b).set(torch["param.out_proj.bias"]);
}

void check_gradients_of(const nn::MultiHeadAttention& attention, const Gradients& ours,
                        const nn::NamedTensors& torch) {
  const Tensors weights = projections(torch, "grad.");
  const std::vector<nn::Linear> layers{attention.query, attention.key, attention.value};
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(largest_difference(ours[layers[i].w], weights[i]) < 1e-12);
  CHECK(largest_difference(ours[attention.output.w], torch["grad.out_proj.weight"]) < 1e-12);
  if (!attention.output.b.defined()) return;
  const Tensors biases = split(torch["grad.in_proj_bias"], 3, 0);
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(largest_difference(ours[layers[i].b], biases[i]) < 1e-12);
  CHECK(largest_difference(ours[attention.output.b], torch["grad.out_proj.bias"]) < 1e-12);
}

// PyTorch's weights [B, Q, T] or [B, heads, Q, T] in our order.
Tensor our_order(const Tensor& weights) {
  return weights.rank() == 3 ? transpose(weights, 0, 1) : permute(weights, {2, 0, 1, 3});
}

void check_golden(const std::string& name, const nn::MultiHeadAttentionOptions& options,
                  bool causal) {
  CAPTURE(name);
  const nn::NamedTensors golden = golden_case(name);
  const Params params(1, f64);
  const nn::MultiHeadAttention attention(params, 6, 2, options);
  load(attention, golden);

  Tape tape;
  const bool itself = golden.tensors.contains("x");
  const auto watch = [&](const char* input) { return tape.watch(golden[itself ? "x" : input]); };
  const Tensor query = watch("query");
  const Tensor key = itself ? query : watch("key"), value = itself ? query : watch("value");
  nn::AttentionOptions call{.causal = causal};
  if (golden.tensors.contains("mask")) call.mask = golden["mask"];
  const auto memory = attention.memory({.keys = key, .values = value}, golden["lengths"]);
  const auto [context, weights] = attention(query, memory, call);
  CHECK(largest_difference(context, golden["context"]) < 1e-12);
  CHECK(largest_difference(weights, our_order(golden["weights"])) < 1e-12);

  const Tensor loss = sum(golden["cotangent.context"] * context) +
                      sum(our_order(golden["cotangent.weights"]) * weights);
  CHECK(largest_difference(loss, golden["loss"]) < 1e-12);
  check_gradients_of(attention, tape.gradient(loss, params, {.keep = true}), golden);
  const std::vector<std::string> names =
      itself ? std::vector<std::string>{"x"} : std::vector<std::string>{"query", "key", "value"};
  const std::vector<Tensor> inputs =
      itself ? std::vector<Tensor>{query} : std::vector<Tensor>{query, key, value};
  const std::vector<Tensor> gradients = tape.gradient(loss, inputs);
  for (std::size_t i = 0; i < names.size(); ++i)
    CHECK(largest_difference(gradients[i], golden["grad." + names[i]]) < 1e-12);
}

}  // namespace

TEST_CASE("attention: contexts are those of the definitions") {
  const Case c;
  check_definition(c, nn::DotAttention(), dot_of);
  check_definition(c, nn::DotAttention({.scaled = true}), [](const double* q, const double* k) {
    return dot_of(q, k) / std::sqrt(static_cast<double>(features));
  });

  const nn::GeneralAttention general(c.params / "general", features, features);
  const Tensor& w = general.key.w.value();
  check_definition(c, general, [&](const double* q, const double* k) {
    double sum = 0;
    for (Index i = 0; i < features; ++i) sum += q[i] * dot_of(w.begin<double>() + i * features, k);
    return sum;
  });

  const nn::AdditiveAttention additive(c.params / "additive", features, features, 3);
  check_definition(c, additive, [&](const double* q, const double* k) {
    double sum = 0;
    for (Index i = 0; i < 3; ++i)
      sum += additive.score.w.value().begin<double>()[i] *
             std::tanh(dot_of(additive.query.w.value().begin<double>() + i * features, q) +
                       dot_of(additive.key.w.value().begin<double>() + i * features, k) +
                       additive.key.b.value().begin<double>()[i]);
    return sum;
  });
}

TEST_CASE("attention: values and gradients are those of PyTorch's MultiheadAttention") {
  check_golden("cross", {}, false);
  check_golden("causal", {}, true);
  check_golden("plain", {.bias = false}, false);
  check_golden("sizes", {.weights = nn::HeadWeights::each, .key_size = 5, .value_size = 7}, false);
}

TEST_CASE("attention: the query of one step is one of many") {
  const Case c;
  each_kind([&](const char* kind, auto make) {
    CAPTURE(kind);
    const Params params(7, f64);
    const auto attention = make(params);
    const nn::AttentionMemory memory = attention.memory(c.x, c.lengths);
    const Tensor mask =
        tensor({1, rows, steps}, {0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0}, i32);
    const auto all = attention(c.query, memory, {.mask = mask});
    CHECK(all.context.shape() == Shape{queries, rows, features});
    CHECK(all.weights.shape() == Shape{queries, rows, steps});
    for (Index q = 0; q < queries; ++q) {
      const auto one = attention(select(c.query, 0, q), memory, {.mask = squeeze(mask, 0)});
      CHECK(largest_difference(one.context, select(all.context, 0, q)) < 1e-15);
      CHECK(largest_difference(one.weights, select(all.weights, 0, q)) < 1e-15);
    }
    CHECK(sum(masked_fill(all.weights, mask, 0)).item() == 0);  // exactly
  });
}

TEST_CASE("attention: a row with a length is that row cut off") {
  const Case c;
  each_kind([&](const char* kind, auto make) {
    CAPTURE(kind);
    const Params params(7, f64);
    const auto attention = make(params);
    const auto all = attention(c.query, attention.memory(c.x, c.lengths));
    for (Index b = 0; b < rows; ++b) {
      const Index length = c.lengths.template begin<std::int32_t>()[b];
      const Tensor real = slice(row(c.x, b), 0, 0, length);
      const auto alone = attention(row(c.query, b), attention.memory(real));
      CHECK(largest_difference(row(all.context, b), alone.context) < 1e-14);
      CHECK(largest_difference(slice(row(all.weights, b), 2, 0, length), alone.weights) < 1e-14);
      CHECK(sum(slice(row(all.weights, b), 2, length, steps)).item() == 0);
    }
  });
}

TEST_CASE("attention: causal outputs depend on no later step") {
  const Case c;
  each_kind([&](const char* kind, auto make) {
    CAPTURE(kind);
    const Params params(7, f64);
    const auto attention = make(params);
    const auto all = attention(c.x, attention.memory(c.x), {.causal = true});
    for (Index t = 1; t <= steps; ++t) {
      const Tensor prefix = slice(c.x, 0, 0, t);
      const auto some = attention(prefix, attention.memory(prefix), {.causal = true});
      CHECK(largest_difference(slice(all.context, 0, 0, t), some.context) < 1e-14);
      CHECK(sum(slice(select(all.weights, 0, t - 1), 1, t, steps)).item() == 0);
      CHECK(sum(slice(select(all.weights, 0, t - 1), 1, t - 1, t)).item() > 0);
    }
  });
}

TEST_CASE("attention: a permuted memory has permuted weights and the same context") {
  const Case c;
  const Tensor order = tensor({steps}, {3, 0, 4, 2, 1}, i32);
  const auto permuted = [&](const Tensor& x) {
    return reshape(gather_rows(reshape(x, {steps, rows * features}), order), x.shape());
  };
  each_kind([&](const char* kind, auto make) {
    CAPTURE(kind);
    const Params params(7, f64);
    const auto attention = make(params);
    const auto before = attention(c.query, attention.memory(c.x));
    const auto after = attention(c.query, attention.memory(permuted(c.x)));
    CHECK(largest_difference(before.context, after.context) < 1e-14);
    for (Index t = 0; t < steps; ++t)
      CHECK(largest_difference(select(before.weights, 2, order.template begin<std::int32_t>()[t]),
                               select(after.weights, 2, t)) < 1e-14);
  });
}

TEST_CASE("attention: what padding holds reaches neither values nor gradients") {
  const Case c;
  const auto padded = [&](double value) {
    Tensor x = c.x.copy();
    for (Index t = 0; t < steps; ++t)
      for (Index b = 0; b < rows; ++b)
        if (t >= c.lengths.begin<std::int32_t>()[b])
          std::fill_n(x.edit<double>().data() + (t * rows + b) * features, features, value);
    return x;
  };
  each_kind([&](const char* kind, auto make) {
    CAPTURE(kind);
    const auto results = [&](double padding, bool create_graph) {
      const Params params(7, f64);
      const auto attention = make(params);
      Tape tape({.check_finite = std::isfinite(padding)});
      const Tensor x = tape.watch(padded(padding)), query = tape.watch(c.query);
      const auto [context, weights] = attention(query, attention.memory(x, c.lengths));
      std::vector<Tensor> wanted{x, query};
      for (const Param& param : params.list()) wanted.push_back(param);
      const Tensor loss = sum(square(context)) + sum(square(weights));
      std::vector<Tensor> all = tape.gradient(loss, wanted, {.create_graph = create_graph});
      if (create_graph) {
        Tensor norm = sum(square(all[1]));
        all.push_back(tape.gradient(norm, {x})[0]);
      }
      all.insert(all.end(), {context.detach(), weights.detach()});
      return all;
    };
    for (const bool create_graph : {false, true}) {
      const std::vector<Tensor> expected = results(0, create_graph);
      for (const double padding : {std::numeric_limits<double>::quiet_NaN(),
                                   std::numeric_limits<double>::infinity(), 1e300}) {
        const std::vector<Tensor> found = results(padding, create_graph);
        for (std::size_t i = 0; i < expected.size(); ++i)
          CHECK(found[i].to_vector() == expected[i].to_vector());
      }
    }
  });
}

TEST_CASE("attention: gradients of the first and second order are those of differences") {
  const Case c;
  const Tensor mask = tensor({queries, 1, steps}, {1, 0, 1, 1, 0, 1, 1, 0, 0, 1}, i32);
  each_kind([&](const char* kind, auto make) {
    CAPTURE(kind);
    const Params params(7, f64);
    const auto attention = make(params);
    const auto loss = [&](std::span<const Tensor> in) {
      const auto [context, weights] =
          attention(in[1], attention.memory(in[0], c.lengths), {.mask = mask});
      return sum(square(context)) + sum(square(weights));
    };
    const GradientReport report =
        check_gradients(loss, params, {{"x", c.x}, {"query", c.query}}, {.order = 2});
    CHECK_MESSAGE(report.ok, report.str());
  });
}

TEST_CASE("attention: dropout of weights acts in training, and not on the weights returned") {
  const Case c;
  const nn::DotAttention attention({.dropout = 0.5});
  const nn::AttentionMemory memory = attention.memory(c.x);
  Rng rng(3);
  const auto evaluated = attention(c.query, memory);
  const auto trained = attention(c.query, memory, nn::Train{rng});
  CHECK(rng.state().position > 0);
  CHECK(trained.weights.to_vector() == evaluated.weights.to_vector());
  CHECK(trained.context.to_vector() != evaluated.context.to_vector());
  Rng again(3);
  const Tensor dropped = dropout(transpose(trained.weights, 0, 1), 0.5, again);
  CHECK(largest_difference(trained.context,
                           transpose(matmul(dropped, transpose(c.x, 0, 1)), 0, 1)) < 1e-14);
}

TEST_CASE("attention: rows of a memory are selected as those of a state") {
  const Case c;
  const nn::MultiHeadAttention attention(c.params / "a", features, 2);
  const nn::AttentionMemory memory = attention.memory(c.x, c.lengths);
  const Tensor chosen = tensor({2}, {2, 1}, i32);
  const auto all = attention(select(c.query, 0, 0), memory);
  const auto some =
      attention(gather_rows(select(c.query, 0, 0), chosen), nn::select_rows(memory, chosen));
  CHECK(some.context.to_vector() == gather_rows(all.context, chosen).to_vector());
  const nn::AttentionMemory full = attention.memory(c.x);
  CHECK(!nn::select_rows(full, chosen).hidden.defined());
}

TEST_CASE("attention: weights of heads are their mean, each or none") {
  const Case c;
  const nn::MultiHeadAttention mean_of(c.params / "a", features, 2);
  nn::MultiHeadAttention each = mean_of, none = mean_of;
  each.weights = nn::HeadWeights::each;
  none.weights = nn::HeadWeights::none;
  const auto memory = mean_of.memory(c.x, c.lengths);
  const Tensor by_head = each(c.query, memory).weights;
  CHECK(by_head.shape() == Shape{queries, rows, 2, steps});
  CHECK(largest_difference(mean(by_head, 2), mean_of(c.query, memory).weights) < 1e-15);
  CHECK(each(select(c.query, 0, 1), memory).weights.to_vector() ==
        select(by_head, 0, 1).to_vector());
  CHECK(!none(c.query, memory).weights.defined());
}

TEST_CASE("attention: initial values have the bounds of PyTorch's") {
  const Params params(1);
  const auto largest = [](const Param& p) { return max(abs(p.value())).item(); };
  const nn::MultiHeadAttention same(params / "same", 64, 4);
  CHECK(largest(same.key.w) == doctest::Approx(std::sqrt(6.0 / (4 * 64))).epsilon(0.01));
  CHECK(largest(same.output.w) == doctest::Approx(1.0 / 8).epsilon(0.01));
  CHECK(largest(same.query.b) == 0);
  CHECK(largest(same.output.b) == 0);
  const nn::MultiHeadAttention sizes(params / "sizes", 64, 4, {.key_size = 32});
  CHECK(largest(sizes.key.w) == doctest::Approx(std::sqrt(6.0 / (32 + 64))).epsilon(0.01));
  CHECK(sizes.value.w.shape() == Shape{64, 32});
}

TEST_CASE("attention: what is wrong is named before any work") {
  const Case c;
  const nn::AdditiveAttention attention(c.params / "decoder" / "attention", features, features, 3);
  const nn::DotAttention dot;
  const auto memory = attention.memory(c.x, c.lengths);
  const Tensor step = select(c.query, 0, 0);
  const std::string name = "AdditiveAttention decoder.attention: ";

  CHECK(message_without_line<ValueError>([&] {
          attention.memory(c.x, tensor({rows}, {5, 0, 2}, i32));
        }) == name +
                  "row 1 of the memory has the length 0, so there is nothing to attend to; leave "
                  "the row out");
  CHECK(message_without_line<ValueError>([&] {
          attention.memory(c.x, tensor({rows}, {5, 6, 2}, i32));
        }) == name +
                  "lengths must be i32 [3], one for each row of x [5, 3, 4], and between 0 and "
                  "5; one is 6");
  CHECK(message_without_line<ShapeError>([&] { attention.memory(step); }) ==
        name + "x must be [T, B, D]; x is f64 [3, 4]");
  CHECK(message_without_line<ShapeError>([&] {
          dot.memory({.keys = c.x, .values = slice(c.x, 0, 0, 4)});
        }) == "DotAttention: the keys [5, 3, 4] and values [4, 3, 4] differ in steps or rows");
  CHECK(message_without_line<ValueError>([&] { attention(step, {}, nn::Eval{}); }) ==
        name + "the memory is undefined; make one by memory(x, lengths)");
  CHECK(message_without_line<ShapeError>([&] { attention(slice(step, 0, 0, 2), memory); }) ==
        name +
            "the query must be [3, D] or [Q, 3, D], for the rows of the memory, but is f64 [2, "
            "4]");
  CHECK(message_without_line<ShapeError>([&] { dot(step, memory); }) ==
        "DotAttention: the memory's keys are [3, 1, 5, 3], not [3, 4, 5]; a memory is made by "
        "memory() of the attention that uses it");
  CHECK(message_without_line<ValueError>([&] { attention(step, memory, {.causal = true}); }) ==
        name +
            "causal is for queries [Q, B, D]; the query of one step, [B, D], attends to what "
            "the mask lets it");
  CHECK(message_without_line<ShapeError>([&] {
          attention(step, memory, {.mask = full({2, rows, steps}, 1, i32)});
        }) == name +
                  "the mask must be i32 [3, 5], or have the size 1 in some axes, but is i32 [2, "
                  "3, 5]");

  // Row 1 has two steps, and the mask lets it attend to the last three only.
  const Tensor last = tensor({1, steps}, {0, 0, 1, 1, 1}, i32);
  CHECK(message_without_line<ValueError>([&] { attention(step, memory, {.mask = last}); }) ==
        name +
            "the mask, with the lengths, hides every step of the memory from row 1; let it "
            "attend to one at least");
  const Tensor first_query = tensor({queries, 1, 1}, {1, 0}, i32);
  CHECK(message_without_line<ValueError>(
            [&] { dot(c.query, dot.memory(c.x), {.mask = first_query}); }) ==
        "DotAttention: the mask, with the lengths, hides every step of the memory from query "
        "1 of row 0; let it attend to one at least");

  const Params params(1);
  CHECK(message_without_line<ValueError>([&] { nn::MultiHeadAttention(params / "a", 6, 4); }) ==
        "MultiHeadAttention a: the size 6 must be a multiple of the number of heads, 4");
  CHECK(message_without_line<ValueError>([&] { nn::AdditiveAttention(params / "a", 6, 0, 4); }) ==
        "AdditiveAttention a: memory_size must be positive, not 0");
  CHECK(params.count() == 0);
}

TEST_CASE("attention: a decoder attends to a memory at every step") {
  const Params params(1, f64);
  const nn::AdditiveAttention attention(params / "attention", 3, 4, 5);
  const nn::GruCell cell(params / "cell", 2 + 4, 3);
  const Tensor encoded = Rng(1).normal({steps, rows, 4}, 0, 1, f64);
  const Tensor targets = Rng(2).normal({6, rows, 2}, 0, 1, f64);
  const Tensor queries = Rng(3).normal({2, rows, 3}, 0, 1, f64);
  const Tensor lengths = tensor({rows}, {5, 2, 3}, i32);
  nn::HiddenState state{zeros({rows, 3}, f64)};
  Tape tape;
  // [attend]
  const nn::AttentionMemory memory = attention.memory(encoded, lengths);
  for (Index t = 0; t < targets.size(0); ++t) {
    const auto [context, weights] = attention(state.h, memory);  // [B, D], [B, T]
    state = cell(concat({select(targets, 0, t), context}, -1), state).state;
  }
  const auto [contexts, all] = attention(queries, memory);  // [Q, B, D], [Q, B, T]
  // [/attend]
  CHECK(contexts.shape() == Shape{2, rows, 4});
  CHECK(all.shape() == Shape{2, rows, steps});
  const Gradients gradients = tape.gradient(sum(square(state.h)), params);
  for (const Param& param : params.list()) CHECK(max(abs(gradients[param])).item() > 0);
}
