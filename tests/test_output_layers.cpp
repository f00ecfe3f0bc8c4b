// Heads of models with large vocabularies: tied to an embedding, adaptive, and by classes.
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "golden_directory.h"
#include "row_gradients.h"
#include "temporary_directory.h"

using namespace reel;
using doctest::Contains;
using reel::testing::same_bits;
using reel::testing::ThreadsScope;

namespace {

using Tokens = std::vector<std::int32_t>;

double distance(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  return a.size() == 0 ? 0 : max(abs(a - b)).to(f64).item();
}

Tokens targets_of(Index count, Index classes) {
  Tokens targets;
  for (Index i = 0; i < count; ++i)
    targets.push_back(static_cast<std::int32_t>((5 * i * i + 3 * i) % classes));
  return targets;
}

// A model whose head has the table of its embedding as weights.
struct Tied {
  explicit Tied(DType dtype, const nn::LinearOptions& options = {}, Index symbols = 7)
      : params(1, dtype),
        embed(params / "embed", symbols, 4),
        rnn(params / "rnn", 4, 4),
        head(params / "head", embed, options) {}

  Params params;
  nn::Embedding embed;
  nn::Gru rnn;
  nn::Linear head;
};

}  // namespace

TEST_CASE("a tied head has the table of its embedding as weights, and a bias of its own") {
  Tied m(f64);
  CHECK(m.head.w.entry() == m.embed.w.entry());
  CHECK(m.head.b.name() == "head.b");
  CHECK(m.head.b.shape() == Shape{7});
  CHECK(m.params.list().size() == 5 + 1);  // of the GRU four
  const Tensor x = Rng(1).normal({3, 4}, 0, 1, f64);
  CHECK(same_bits(m.head(x), affine(x, m.embed.w, m.head.b)));
  m.embed.w.edit<double>()[0] += 1;
  CHECK(same_bits(m.head(x), affine(x, m.embed.w, m.head.b)));

  const Tied unbiased(f64, {.bias = false});
  CHECK(!unbiased.head.b.defined());
  CHECK(unbiased.params.list().size() == 5);
  CHECK(same_bits(unbiased.head(x), matmul(x, unbiased.embed.w, false, true)));

  CHECK_THROWS_WITH_AS(m.head(zeros({3, 5}, f64)),
                       Contains("Linear head: x is f64 [3, 5], but its last axis must have 4"),
                       ShapeError);
  const Params params(1);
  const nn::Embedding embed(params / "table", 5, 3);
  CHECK_THROWS_WITH_AS(
      nn::Linear(params / "out", embed, {.weight_init = nn::init::constant(0)}),
      Contains(
          "Linear out: weight_init is given, but the weights are those of the embedding table"),
      ValueError);
  CHECK(params.list().size() == 1);
}

TEST_CASE("the gradient of tied weights adds what embedding and head contribute") {
  const Tied m(f64);
  const Tensor x = tensor({3, 2}, Tokens{2, 5, 2, 0, 6, 2}),
               y = tensor({3, 2}, Tokens{5, 1, 0, 4, 2, 2});
  const auto loss = [&](const nn::Linear& head) {
    return [&m, &x, &y, &head] { return head.cross_entropy(m.rnn(m.embed(x)).y, y); };
  };
  // The same model with two matrices of equal values.
  const Params apart = m.params.clone();
  const nn::Linear own(apart / "head_of_its_own", 4, 7);
  nn::Linear copy = own;
  copy.w.set(m.embed.w.value());
  copy.b.set(m.head.b.value());
  const Gradients tied = testing::gradient_of(loss(m.head), m.params);
  const Gradients of_embedding = testing::gradient_of(loss(copy), m.params);
  const Gradients of_head = testing::gradient_of(loss(copy), apart);
  CHECK(!testing::is_by_rows(tied, m.embed.w));
  CHECK(testing::is_by_rows(of_embedding, m.embed.w));
  CHECK(distance(tied[m.embed.w], of_embedding[m.embed.w] + of_head[copy.w]) < 1e-14);
  CHECK(norm(of_embedding[m.embed.w]).item() > 1e-3);
  CHECK(distance(tied[m.head.b], of_head[copy.b]) < 1e-14);

  for (const int order : {1, 2}) {
    CHECK(check_gradients(loss(m.head), m.params, {.order = order}).ok);
    CHECK(check_gradients([&] { return cross_entropy(m.head(m.rnn(m.embed(x)).y), y); }, m.params,
                          {.order = order})
              .ok);
  }
}

TEST_CASE("tied weights train, step, and are one tensor in a file") {
  const TemporaryDirectory directory;
  Tied m(f32);
  const Tensor x = tensor({4, 1}, Tokens{1, 2, 3, 4}), y = tensor({4, 1}, Tokens{2, 3, 4, 5});
  optim::Adam adam(m.params,
                   {.learning_rate = 0.05, .groups = {{.params = "embed.*", .lazy_rows = true}}});
  double first = 0, last = 0;
  for (int i = 0; i < 60; ++i) {
    Tape tape;
    const Tensor loss = m.head.cross_entropy(m.rnn(m.embed(x)).y, y);
    last = loss.item();
    if (i == 0) first = last;
    adam.step(tape.gradient(loss, m.params));
  }
  CHECK(last < first / 10);
  const nn::TokenStepper step(m.embed, m.rnn, m.head);
  const auto written =
      nn::generate(step, {{1}}, {.max_length = 4, .sampling = {.temperature = 0}}, Rng(1));
  CHECK(written[0].tokens == Tokens{2, 3, 4, 5});
  const Tensor logits = m.head(m.rnn(m.embed(slice(x, 0, 0, 1))).y);
  CHECK(same_bits(step(tensor({1}, Tokens{1})).y, squeeze(logits, 0)));

  nn::NamedTensors content = nn::from_params(m.params);
  CHECK(content.tensors.size() == m.params.list().size());
  nn::save_safetensors(directory.path() / "tied.safetensors", content);
  const Tied again(f32);
  nn::load_params(nn::load_safetensors(directory.path() / "tied.safetensors"), again.params);
  CHECK(same_bits(again.head(zeros({1, 4})), m.head(zeros({1, 4}))));
  CHECK(same_bits(again.head.w.value(), m.embed.w.value()));
}

namespace {

// What AdaptiveSoftmax and ClassFactoredSoftmax have in common.
template <class Head>
void check_loss(const Params& params, const Head& head, Index features, Index classes) {
  const Index rows = 24;
  const Tensor x = Rng(2).normal({4, 6, features}, 0, 1, f64);
  const Tokens targets = targets_of(rows, classes);
  const Tensor t = tensor({4, 6}, targets), p = Rng(3).uniform({4, 6}, 0.5, 2, f64);
  const Tensor l = head.log_probabilities(x);
  REQUIRE(l.shape() == Shape{4, 6, classes});
  CHECK(max(abs(sum(exp(l), -1) - 1)).item() < 1e-14);
  CHECK(std::abs(head.cross_entropy(x, t).item() - nll(l, t).item()) < 1e-13);

  const auto both = [&](const nn::ClassLossOptions& options) {
    const auto gradients = [&](auto loss) {
      return testing::gradient_of([&] { return 2 * loss(); }, params);
    };
    const CrossEntropyOptions same{.weights = options.weights,
                                   .ignore_index = options.ignore_index,
                                   .reduction = options.reduction};
    const Gradients found = gradients([&] { return head.cross_entropy(x, t, options); });
    const Gradients expected = gradients([&] { return nll(head.log_probabilities(x), t, same); });
    CHECK(head.cross_entropy(x, t, options).item() ==
          doctest::Approx(nll(l, t, same).item()).epsilon(1e-12));
    expected.each([&](const auto& entry, const Tensor& g) {
      CAPTURE(entry->name);
      const Tensor* own = found.find(*entry);
      CHECK(distance(own ? *own : zeros(g.shape(), f64), g) < 1e-12);
    });
  };
  for (const LossReduction reduction : {LossReduction::mean, LossReduction::sum}) {
    both({.reduction = reduction});
    both({.weights = p, .reduction = reduction});
    both({.weights = p, .ignore_index = targets[3], .reduction = reduction});
  }

  // Of the weights too, and of x.
  const auto loss = [&](std::span<const Tensor> in) {
    return head.cross_entropy(in[0], t, {.weights = in[1], .ignore_index = targets[5]});
  };
  for (const int order : {1, 2})
    CHECK(check_gradients(loss, params, {{"x", x}, {"weights", p}},
                          {.order = order, .mode = GradcheckOptions::Mode::fast})
              .ok);

  // A mean of nothing is refused, a sum of nothing is 0 with a gradient of 0.
  const Tensor none = full({2}, -1, i32), two = zeros({2, features}, f64);
  CHECK_THROWS_WITH_AS(head.cross_entropy(two, none, {.ignore_index = -1}),
                       Contains("there is nothing to average"), ValueError);
  CHECK(
      head.cross_entropy(two, none, {.ignore_index = -1, .reduction = LossReduction::sum}).item() ==
      0);
  CHECK_THROWS_WITH_AS(head.cross_entropy(two, zeros({2}, i32), {.weights = zeros({2}, f64)}),
                       Contains("there is nothing to average: the weights that count sum to 0"),
                       ValueError);
  // The target of one row alone.
  const Tensor row = select(select(x, 0, 0), 0, 1);
  CHECK(head.cross_entropy(row, scalar(targets[1], i32)).item() ==
        doctest::Approx(-l.at({0, 1, targets[1]})));

  const auto refuses = [&](auto f, const char* words) {
    CHECK_THROWS_WITH_AS(f(), Contains(words), Error);
  };
  refuses(
      [&] {
        head.cross_entropy(zeros({2, features + 1}, f64), zeros({2}, i32));
      },
      "but its last axis must have");
  refuses([&] { head.cross_entropy(two, zeros({3}, i32)); },
          "targets have shape [3], but must have the axes of x");
  refuses([&] { head.cross_entropy(two, zeros({2}, f64)); }, "targets must be i32, not f64");
  refuses([&] { head.cross_entropy(two, zeros({2}, i32), {.weights = zeros({3}, f64)}); },
          "weights have shape [3], but must have that of the targets");
  refuses([&] { head.cross_entropy(two, full({2}, classes, i32)); }, "at position 0 is not among");
  refuses([&] { head.cross_entropy(two, full({2}, classes, i32)); }, "test_output_layers.cpp:");
  refuses([&] { head.cross_entropy({}, zeros({2}, i32)); }, "x is undefined");
  refuses([&] { head.cross_entropy(two, {}); }, "targets are undefined");
  refuses([&] { head.log_probabilities(zeros({2, features + 1}, f64)); }, "last axis must have");

  const Tensor predicted = head.predict(x);
  CHECK(same_bits(predicted, argmax(l)));
  Tape tape;
  head.predict(tape.watch(x));
  CHECK(tape.size() == 0);
}

template <class Head>
void check_threads(const Params& params, const Head& head, Index features, Index classes) {
  const Tensor x = Rng(2).normal({400, features}), t = tensor({400}, targets_of(400, classes));
  std::vector<Gradients> found;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    found.push_back(testing::gradient_of([&] { return head.cross_entropy(x, t); }, params));
    CHECK(testing::same_bits(found.front(), found.back()));
  }
}

}  // namespace

TEST_CASE("the loss of an adaptive softmax is that of its log-probabilities") {
  const Params params(1, f64);
  const nn::AdaptiveSoftmax head(params / "head", 8, 17, {5, 9}, {.div_value = 2});
  CHECK(head.head.w.shape() == Shape{7, 8});
  CHECK(!head.head.b.defined());
  CHECK(head.tails[1].projection.w.name() == "head.tail.1.projection.w");
  CHECK(head.tails[0].output.w.shape() == Shape{4, 4});
  CHECK(head.tails[1].output.w.shape() == Shape{8, 2});
  check_loss(params, head, 8, 17);
}

TEST_CASE("an adaptive softmax computes a tail for the rows of its own targets alone") {
  const Params params(1, f64);
  const nn::AdaptiveSoftmax head(params, 8, 17, {5, 9}, {.div_value = 2, .head_bias = true});
  Tensor x = Rng(2).normal({4, 8}, 0, 1, f64);
  const Tensor t = tensor({4}, Tokens{0, 6, 4, 7});
  const Gradients gradients =
      testing::gradient_of([&] { return head.cross_entropy(x, t); }, params);
  CHECK(gradients.find(head.tails[0].output.w) != nullptr);
  CHECK(gradients.find(head.tails[1].output.w) == nullptr);
  CHECK(gradients.find(head.head.b) != nullptr);
  // Ignored rows may hold anything.
  x.edit<double>()[0] = std::numeric_limits<double>::quiet_NaN();
  const Gradients rest =
      testing::gradient_of([&] { return head.cross_entropy(x, t, {.ignore_index = 0}); }, params);
  CHECK(std::isfinite(rest.norm()));
}

TEST_CASE("adaptive softmax: predictions in the tails, and threads") {
  const Params params(1, f64);
  const nn::AdaptiveSoftmax head(params, 8, 30, {3, 9}, {.div_value = 2});
  nn::Linear first = head.head;
  first.w.set(8 * Rng(4).normal({5, 8}, 0, 1, f64));
  const Tensor x = Rng(5).normal({50, 8}, 0, 2, f64);
  const Tensor predicted = head.predict(x);
  CHECK(same_bits(predicted, argmax(head.log_probabilities(x))));
  CHECK(min(predicted).item() < 3);
  CHECK(max(predicted).item() >= 9);
  const Params single(1);
  check_threads(single, nn::AdaptiveSoftmax(single, 16, 9000, {500, 2000}), 16, 9000);
}

TEST_CASE("adaptive softmax: mistakes in its sizes are named") {
  const Params params(1);
  const auto says = [&](Index features, Index classes, const std::vector<Index>& cutoffs,
                        const nn::AdaptiveSoftmaxOptions& options = {}) {
    const std::string message = message_of<ValueError>(
        [&] { nn::AdaptiveSoftmax(params / "out", features, classes, cutoffs, options); });
    CHECK(contains(message, "AdaptiveSoftmax out: "));
    CHECK(contains(message, "test_output_layers.cpp:"));
    CHECK(params.list().empty());
    return message;
  };
  CHECK(contains(says(0, 9, {3}), "input_size must be positive, not 0"));
  CHECK(contains(says(4, -1, {3}), "classes must be positive"));
  for (const std::vector<Index>& cutoffs :
       {std::vector<Index>{}, {0}, {9}, {3, 3}, {5, 3}, {-1, 3}})
    CHECK(contains(says(4, 9, cutoffs), "the cutoffs must ascend between 1 and 8, not be ["));
  CHECK(contains(says(4, 9, {3, 5}),
                 "tail 1 has no features, as 4 / 4^2 is below 1; give a "
                 "smaller div_value or fewer cutoffs"));
  CHECK(contains(says(4, 9, {3}, {.div_value = 0.5}), "div_value must be finite and at least 1"));
  CHECK(contains(says(4, 9, {3}, {.div_value = NAN}), "div_value must be finite and at least 1"));
}

TEST_CASE("PyTorch: AdaptiveLogSoftmaxWithLoss") {
  for (const std::string name : {"plain", "head_bias"}) {
    CAPTURE(name);
    const nn::NamedTensors golden =
        nn::load_safetensors(REEL_GOLDEN_DIR "/adaptive_softmax.safetensors").part(name + ".");
    const Params params(1, f64);
    const nn::AdaptiveSoftmax head(params, 12, 20, {4, 9, 15},
                                   {.div_value = 2, .head_bias = name == "head_bias"});
    // Their names: head.weight, tail.0.0.weight (the projection), tail.0.1.weight.
    std::vector<std::pair<Param, std::string>> parameters{{head.head.w, "head.weight"}};
    if (head.head.b.defined()) parameters.emplace_back(head.head.b, "head.bias");
    for (std::size_t i = 0; i < 3; ++i) {
      const std::string tail = "tail." + std::to_string(i);
      parameters.emplace_back(head.tails[i].projection.w, tail + ".0.weight");
      parameters.emplace_back(head.tails[i].output.w, tail + ".1.weight");
    }
    for (auto& [param, key] : parameters) param.set(golden["param." + key]);
    const Tensor x = golden["x"], targets = golden["targets"];
    CHECK(distance(head.log_probabilities(x), golden["log_prob"]) < 1e-12);
    CHECK(distance(head.predict(x), golden["predict"]) == 0);
    Tape tape;
    const Tensor watched = tape.watch(x);
    const Tensor loss = head.cross_entropy(watched, targets);
    CHECK(std::abs(loss.item() - golden["loss"].item()) < 1e-13);
    const Gradients gradients = tape.gradient(loss, params, {.keep = true});
    for (const auto& [param, key] : parameters)
      CHECK(distance(gradients[param], golden["grad." + key]) < 1e-13);
    CHECK(distance(tape.gradient(loss, {watched})[0], golden["grad.x"]) < 1e-13);
  }
}

TEST_CASE("the loss of a softmax by classes is that of its log-probabilities") {
  const Params params(1, f64);
  const Tokens class_of{2, 0, 1, 1, 2, 0, 2, 2, 3, 1, 0};  // one class has a single member
  const nn::ClassFactoredSoftmax head(params / "head", 5, class_of);
  CHECK(head.classes.w.name() == "head.classes.w");
  CHECK(head.classes.w.shape() == Shape{4, 5});
  CHECK(head.w.shape() == Shape{11, 5});
  check_loss(params, head, 5, 11);
}

TEST_CASE("a softmax by classes is p(class) p(symbol | class), from scratch") {
  const Params params(1, f64);
  const Tokens class_of{1, 0, 1, 0, 1};
  const nn::ClassFactoredSoftmax head(params, 3, class_of);
  const Tensor x = Rng(2).normal({1, 3}, 0, 1, f64);
  const std::vector<double> of_class = softmax(head.classes(x)).to_vector();
  const std::vector<double> e = exp(matmul(head.w, x, false, true) + head.b).to_vector();
  const std::vector<double> within{e[1] + e[3], e[0] + e[2] + e[4]};
  const Tensor l = head.log_probabilities(x);
  for (std::size_t s = 0; s < 5; ++s) {
    const auto k = static_cast<std::size_t>(class_of[s]);
    CHECK(l.at({0, static_cast<Index>(s)}) ==
          doctest::Approx(std::log(of_class[k] * e[s] / within[k])));
  }
}

TEST_CASE("a softmax by classes: gradients of the rows of the targets' classes, and threads") {
  const Params params(1, f64);
  const nn::ClassFactoredSoftmax head(params, 3, Tokens{1, 0, 1, 0, 2, 2});
  const Tensor x = Rng(2).normal({2, 3}, 0, 1, f64);
  const Gradients gradients = testing::gradient_of(
      [&] {
        return head.cross_entropy(x, tensor({2}, Tokens{2, 5}));
      },
      params);
  for (const Param& param : {head.w, head.b}) {
    const RowGradient* rows = gradients.find_rows(*param.entry());
    REQUIRE(rows);
    CHECK(rows->rows.to_vector() == std::vector<double>{0, 2, 4, 5});
  }
  const Params single(1);
  Tokens class_of(5000);
  for (std::size_t s = 0; s < class_of.size(); ++s)
    class_of[s] = static_cast<std::int32_t>(s * s % 71);
  std::vector<Index> counts(5000);
  for (std::size_t s = 0; s < counts.size(); ++s) counts[s] = 100'000 / (static_cast<Index>(s) + 1);
  check_threads(single, nn::ClassFactoredSoftmax(single, 16, nn::classes_by_frequency(counts, 70)),
                16, 5000);
}

TEST_CASE("a softmax by classes samples by its probabilities, each row by itself") {
  const Params params(1, f64);
  const nn::ClassFactoredSoftmax head(params, 3, Tokens{1, 0, 1, 0, 2});
  const Tensor x = 2 * Rng(2).normal({2, 3}, 0, 1, f64);
  const Tensor p = exp(head.log_probabilities(x));
  constexpr int draws = 20'000;
  std::vector<Rng> rngs = nn::row_streams(Rng(3), 2), own = nn::row_streams(Rng(3), 1);
  std::vector<double> counts(10);
  for (int i = 0; i < draws; ++i) {
    const Tensor drawn = head.sample(x, rngs);
    REQUIRE(drawn.shape() == Shape{2});
    for (std::size_t r = 0; r < 2; ++r)
      ++counts[5 * r + static_cast<std::size_t>(drawn.values<std::int32_t>()[r])];
    if (i < 100) CHECK(drawn.at({0}) == head.sample(slice(x, 0, 0, 1), own).at({0}));
  }
  CHECK(rngs[0].state().position == 2 * draws);
  const std::vector<double> expected = p.to_vector();
  for (std::size_t i = 0; i < 10; ++i)
    CHECK(std::abs(counts[i] - draws * expected[i]) <
          5 * std::sqrt(draws * expected[i] * (1 - expected[i])) + 1);
  CHECK_THROWS_WITH_AS(head.sample(x, own), Contains("x has shape [2, 3], not [1, 3], a row for"),
                       ShapeError);
}

TEST_CASE("a softmax by classes: mistakes in the classes are named") {
  const Params params(1);
  const auto says = [&](Index features, const Tokens& class_of) {
    const std::string message = message_of<ValueError>(
        [&] { nn::ClassFactoredSoftmax(params / "out", features, class_of); });
    CHECK(contains(message, "ClassFactoredSoftmax out: "));
    CHECK(contains(message, "test_output_layers.cpp:"));
    CHECK(params.list().empty());
    return message;
  };
  CHECK(contains(says(0, {0}), "input_size must be positive, not 0"));
  CHECK(contains(says(3, {}), "there are no symbols"));
  CHECK(contains(says(3, {0, -2}), "-2 is no class; they count from 0"));
  CHECK(contains(says(3, {0, 2, 0}), "class 1 of 3 has no symbol"));
  CHECK(contains(says(3, {0, 2'000'000'000}), "the 2 symbols cannot be in 2000000001 classes"));
}

TEST_CASE("classes of about equal frequency") {
  const auto classes = [](std::vector<Index> counts, Index number) {
    return nn::classes_by_frequency(counts, number);
  };
  CHECK(classes({1, 1, 1, 1, 1, 1}, 3) == Tokens{0, 0, 1, 1, 2, 2});
  CHECK(classes({1, 8, 1, 4, 2}, 2) == Tokens{1, 0, 1, 1, 1});
  CHECK(classes({1, 8, 1, 4, 2}, 4) == Tokens{3, 0, 3, 1, 2});  // 8 has the share of two
  CHECK(classes({0, 5, 0}, 2) == Tokens{1, 0, 1});
  CHECK(classes({3}, 4) == Tokens{0});
  CHECK(classes({2, 2}, 1) == Tokens{0, 0});
  std::vector<Index> zipf(1000);
  for (std::size_t s = 0; s < zipf.size(); ++s) zipf[s] = 1'000'000 / (static_cast<Index>(s) + 1);
  const Tokens class_of = classes(zipf, 30);
  std::vector<double> mass(30);
  for (std::size_t s = 0; s < zipf.size(); ++s)
    mass.at(static_cast<std::size_t>(class_of[s])) += static_cast<double>(zipf[s]);
  const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
  for (const double m : mass) CHECK(m < total / 30 + static_cast<double>(zipf[0]));
  CHECK(std::ranges::is_sorted(class_of));
  const nn::ClassFactoredSoftmax made(Params(1), 2, class_of);  // no class is empty

  const auto says = [&](std::vector<Index> counts, Index number) {
    return message_of<ValueError>([&] { nn::classes_by_frequency(counts, number); });
  };
  CHECK(contains(says({1}, 0), "classes_by_frequency: classes must be positive, not 0 ("));
  CHECK(contains(says({}, 2), "there are no counts"));
  CHECK(contains(says({1, -3}, 2), "a count is -3, which is negative"));
  CHECK(contains(says({0, 0}, 2), "all counts are 0"));
}
