// Metrics of predictions and losses, and when to stop.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <sstream>

#include <reel/autograd/edit_distance.h>
#include <reel/autograd/rng.h>
#include <reel/datasets/confusion_matrix.h>
#include <reel/datasets/labels.h>
#include <reel/datasets/loss_mean.h>
#include <reel/datasets/metrics.h>
#include <reel/datasets/span_scores.h>
#include <reel/optim/early_stopping.h>

#include "testing.h"

using namespace reel;
using namespace reel::datasets;
using namespace reel::testing;
using doctest::Approx;
using doctest::Contains;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

using Words = std::vector<std::string>;

Words labels(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

Tensor classes(std::initializer_list<double> values) {
  return tensor({static_cast<Index>(values.size())}, values, i32);
}

}  // namespace

TEST_CASE("accuracy: the share of right predictions among those that count") {
  const Tensor targets = tensor({2, 3}, {0, 1, 2, -1, 1, 0}, i32);
  const Tensor predictions = tensor({2, 3}, {0, 1, 1, 2, 0, 0}, i32);
  CHECK(accuracy(targets, predictions) == Approx(3.0 / 6));
  CHECK(accuracy(targets, predictions, {.ignore_index = -1}) == Approx(3.0 / 5));
  for (const DType dtype : {f32, f64, i32}) {
    const Tensor mask = tensor({2, 3}, {1, 1, 0, 0, 0, 0}, dtype);
    CHECK(accuracy(targets, predictions, {.mask = mask}) == 1);
  }
  CHECK_THROWS_WITH_AS(accuracy(targets, predictions, {.mask = zeros({2, 3})}),
                       Contains("accuracy: no position counts"), ValueError);
  CHECK_THROWS_WITH_AS(accuracy(targets, classes({1})),
                       Contains("targets are [2, 3], but predictions are [1] (" __FILE__),
                       ShapeError);
  CHECK_THROWS_WITH_AS(accuracy(targets, predictions, {.mask = zeros({6})}),
                       Contains("but the mask is [6]"), ShapeError);
  CHECK_THROWS_AS(accuracy(targets, zeros({2, 3})), DTypeError);
}

TEST_CASE("confusion matrix: counts, precision, recall, F1") {
  ConfusionMatrix matrix({"cat", "dog", "owl"});
  matrix.add(classes({0, 0, 0, 1, 1, -1, 2}), classes({0, 0, 1, 1, 0, 2, 0}), {.ignore_index = -1});
  matrix.add(classes({1, 2}), classes({1, 5}), {.mask = classes({1, 0})});
  CHECK(matrix.total() == 7);
  CHECK(matrix.count(0, 1) == 1);
  CHECK(matrix.count(2, 0) == 1);
  CHECK(matrix.count(2, 2) == 0);
  CHECK(matrix.score(0) == FScore{.correct = 2, .predictions = 4, .targets = 3});
  CHECK(matrix.score(0).precision() == Approx(2.0 / 4));
  CHECK(matrix.score(0).recall() == Approx(2.0 / 3));
  CHECK(matrix.score(0).f1() == Approx(4.0 / 7));
  CHECK(matrix.score(2).precision() == 0);
  CHECK(matrix.score(2).f1() == 0);
  CHECK(matrix.accuracy() == Approx(4.0 / 7));
  CHECK(matrix.micro_f1() == matrix.accuracy());
  CHECK(matrix.macro_f1() == Approx((4.0 / 7 + 2.0 / 3 + 0) / 3));
  // Without class 0: correct 2, predicted 3, targets 3 + 1.
  CHECK(matrix.micro_f1(std::vector<Index>{0}) == Approx(2 * 2.0 / (3 + 4)));
  CHECK(matrix.str() ==
        "target  cat  dog  owl  precision  recall     F1\n"
        "cat       2    1    0      0.500   0.667  0.571\n"
        "dog       1    2    0      0.667   0.667  0.667\n"
        "owl       1    0    0      0.000   0.000  0.000\n");
}

TEST_CASE("confusion matrix: a class that never occurs does not count in the macro average") {
  ConfusionMatrix matrix(4);
  CHECK(matrix.accuracy() == 0);
  CHECK(matrix.macro_f1() == 0);
  matrix.add(classes({0, 1}), classes({0, 3}));
  CHECK(matrix.macro_f1() == Approx(1.0 / 3));
}

TEST_CASE("confusion matrix: bad classes are named, and nothing of their batch is counted") {
  ConfusionMatrix matrix(2);
  CHECK_THROWS_WITH_AS(matrix.add(classes({0, 2}), classes({0, 0})),
                       Contains("ConfusionMatrix: there is no class 2; there are 2 (" __FILE__),
                       ValueError);
  CHECK_THROWS_AS(matrix.add(classes({0, 1}), classes({0, -1})), ValueError);
  CHECK_THROWS_AS(matrix.add(classes({0, 1}), classes({0})), ShapeError);
  CHECK(matrix.total() == 0);
  CHECK_THROWS_AS(matrix.score(2), ValueError);
  CHECK_THROWS_AS(matrix.count(0, -1), ValueError);
  CHECK_THROWS_AS(matrix.micro_f1(std::vector<Index>{2}), ValueError);
  CHECK_THROWS_AS(ConfusionMatrix(0), ValueError);
  CHECK_THROWS_AS(ConfusionMatrix(INT64_MAX), ValueError);
  CHECK_THROWS_AS(ConfusionMatrix(std::vector<std::string>{}), ValueError);
}

TEST_CASE("confusion matrix: names from a file stay on their line") {
  const ConfusionMatrix matrix(std::vector<std::string>{"a\nb\x1b[31m"});
  CHECK(matrix.str().find("a\\nb\\u001b[31m  ") != std::string::npos);
}

TEST_CASE("spans: what begins, continues and ends one") {
  using Spans = std::vector<LabelledSpan>;
  CHECK(spans_of(labels("O B-PER I-PER O B-LOC")) == Spans{{1, 3, "PER"}, {4, 5, "LOC"}});
  CHECK(spans_of(labels("B-PER B-PER I-PER")) == Spans{{0, 1, "PER"}, {1, 3, "PER"}});
  CHECK(spans_of(labels("B-PER I-LOC I-LOC")) == Spans{{0, 1, "PER"}, {1, 3, "LOC"}});
  CHECK(spans_of(labels("I-PER I-PER O I-LOC")) == Spans{{0, 2, "PER"}, {3, 4, "LOC"}});
  CHECK(spans_of(labels("O O")).empty());
  CHECK(spans_of({}).empty());
  const auto strict = [](const std::string& text) {
    return spans_of(labels(text), StrayInside::ignored);
  };
  CHECK(strict("I-PER I-PER O I-LOC").empty());
  CHECK(strict("B-PER I-LOC I-PER") == Spans{{0, 1, "PER"}});
  CHECK(strict("B-PER I-PER") == Spans{{0, 2, "PER"}});
  CHECK(spans_of(labels("B-a-b I-a-b")) == Spans{{0, 2, "a-b"}});
  for (const char* bad : {"", "B", "B-", "I-", "o", "E-PER", "BPER", "O-PER"})
    CHECK_THROWS_WITH_AS(spans_of(Words{"O", bad}), Contains("not O, B-TYPE or I-TYPE (" __FILE__),
                         ValueError);
}

TEST_CASE("span scores: as conlleval counts") {
  SpanScores scores;
  scores.add(labels("B-PER I-PER O B-LOC O"), labels("B-PER I-PER O B-ORG O"));
  scores.add(labels("B-PER O B-LOC I-LOC"), labels("B-PER I-PER B-LOC I-LOC"));
  CHECK(scores.total() == FScore{.correct = 2, .predictions = 4, .targets = 4});
  CHECK(scores.types().at("PER") == FScore{.correct = 1, .predictions = 2, .targets = 2});
  CHECK(scores.types().at("LOC") == FScore{.correct = 1, .predictions = 1, .targets = 2});
  CHECK(scores.types().at("ORG") == FScore{.correct = 0, .predictions = 1, .targets = 0});
  CHECK(scores.total().f1() == Approx(0.5));
  CHECK(scores.macro_f1() == Approx((0.5 + 2.0 / 3 + 0) / 3));
  CHECK(scores.str() ==
        "type  targets  predictions  correct  precision  recall     F1\n"
        "LOC         2            1        1      1.000   0.500  0.667\n"
        "ORG         0            1        0      0.000   0.000  0.000\n"
        "PER         2            2        1      0.500   0.500  0.500\n"
        "all         4            4        2      0.500   0.500  0.500\n");
  const SpanScores before = scores;
  CHECK_THROWS_WITH_AS(scores.add(labels("O O"), labels("O")),
                       Contains("there are 2 targets, but 1 predictions"), ValueError);
  CHECK_THROWS_AS(scores.add(labels("B-X"), labels("?")), ValueError);
  CHECK(scores.types() == before.types());
  CHECK(SpanScores().macro_f1() == 0);
}

TEST_CASE("span scores: as sets of spans, on random labels") {
  const Words all{"O", "B-a", "I-a", "B-b", "I-b"};
  Rng rng(1);
  for (int trial = 0; trial < 300; ++trial) {
    Words targets, predictions;
    const Index n = rng.integer(12);
    for (Index i = 0; i < n; ++i) {
      targets.push_back(all[static_cast<std::size_t>(rng.integer(5))]);
      predictions.push_back(rng.uniform() < 0.7 ? targets.back()
                                                : all[static_cast<std::size_t>(rng.integer(5))]);
    }
    for (const StrayInside stray : {StrayInside::begins, StrayInside::ignored}) {
      SpanScores scores(stray);
      scores.add(targets, predictions);
      Index correct = 0;
      const auto there = spans_of(targets, stray), found = spans_of(predictions, stray);
      for (const LabelledSpan& span : found) correct += std::ranges::count(there, span);
      REQUIRE(scores.total() == FScore{correct, std::ssize(found), std::ssize(there)});
    }
  }
}

TEST_CASE("loss mean: of weighted parts, in nats, bits and as perplexity") {
  LossMean mean;
  CHECK_THROWS_WITH_AS(mean.mean(), Contains("no mean without losses (" __FILE__), ValueError);
  mean.add(1, 30);
  mean.add(2, 10);
  mean.add(not_a_number, 0);
  CHECK(mean.mean() == Approx(1.25));
  CHECK(mean.bits() == Approx(1.25 / std::log(2)));
  CHECK(mean.perplexity() == Approx(std::exp(1.25)));
  LossMean restored(mean.sum(), mean.weight());
  mean.add(0.5, 3);
  restored.add(0.5, 3);
  CHECK(restored.mean() == mean.mean());
  for (const double bad : {-1.0, not_a_number, infinity}) {
    CHECK_THROWS_AS(mean.add(1, bad), ValueError);
    CHECK_THROWS_AS(LossMean(1, bad), ValueError);
  }
  CHECK_THROWS_AS(LossMean(1, 0), ValueError);
  CHECK_THROWS_AS(LossMean(not_a_number, 1), ValueError);
  CHECK(perplexity(0) == 1);
  CHECK(perplexity(std::log(50)) == Approx(50));
  CHECK(bits(std::log(2)) == 1);
}

TEST_CASE("early stopping: after patience values without an improvement") {
  optim::EarlyStopping stopping({.patience = 2});
  CHECK_FALSE(stopping.best());
  CHECK(stopping.update(3));
  CHECK(stopping.update(2));
  CHECK_FALSE(stopping.update(2));
  CHECK_FALSE(stopping.should_stop());
  CHECK(stopping.update(1.5));
  CHECK_FALSE(stopping.update(not_a_number));
  CHECK_FALSE(stopping.update(-infinity));
  CHECK(stopping.should_stop());
  CHECK(stopping.best() == 1.5);
  CHECK(stopping.update(1));
  CHECK_FALSE(stopping.should_stop());
}

TEST_CASE("early stopping: an improvement has to be larger than min_delta, in either direction") {
  optim::EarlyStopping loss({.min_delta = 0.5});
  CHECK(loss.update(3));
  CHECK_FALSE(loss.update(2.5));
  CHECK(loss.update(2.25));
  optim::EarlyStopping accuracy({.min_delta = 0.5, .better = optim::Better::larger});
  CHECK(accuracy.update(3));
  CHECK_FALSE(accuracy.update(3.5));
  CHECK_FALSE(accuracy.update(2));
  CHECK(accuracy.update(3.75));
  CHECK(accuracy.since_best() == 0);
}

TEST_CASE("early stopping: it goes on from its numbers") {
  const std::vector<double> values{not_a_number, 5, 4, 4.5, 4.2, 3, 3.5, 3.2, 3.1, 3.3};
  for (std::size_t stop = 0; stop <= values.size(); ++stop) {
    optim::EarlyStopping whole({.patience = 3}), first({.patience = 3}), second({.patience = 3});
    for (std::size_t i = 0; i < stop; ++i) {
      whole.update(values[i]);
      first.update(values[i]);
    }
    second.restore(first.numbers());
    for (std::size_t i = stop; i < values.size(); ++i)
      CHECK(second.update(values[i]) == whole.update(values[i]));
    CHECK(second.numbers() == whole.numbers());
    CHECK(second.should_stop());
  }
  using Numbers = std::map<std::string, double, std::less<>>;
  optim::EarlyStopping stopping;
  const auto refused = [&](double best, double since) {
    const Numbers numbers{{"early_stopping.best", best}, {"early_stopping.since_best", since}};
    return error_of<ValueError>([&] { stopping.restore(numbers); });
  };
  CHECK(refused(not_a_number, 1).starts_with("EarlyStopping: early_stopping.best is nan"));
  for (const double bad : {-1.0, 0.5, not_a_number, infinity, 1e300})
    CHECK(refused(1, bad).starts_with("EarlyStopping: early_stopping.since_best is "));
  CHECK_THROWS_WITH_AS(stopping.restore(Numbers{}), Contains("there is no number"), ValueError);
  CHECK_THROWS_AS(optim::EarlyStopping({.patience = 0}), ValueError);
  CHECK_THROWS_AS(optim::EarlyStopping({.min_delta = -1}), ValueError);
  CHECK_THROWS_AS(optim::EarlyStopping({.min_delta = not_a_number}), ValueError);
}

TEST_CASE("labels are numbers, by rank or as they are given, and others are refused") {
  const std::vector<Words> sequences{labels("NOUN VERB"), {}, labels("ADJ NOUN")};
  const Labels tags = Labels::of(sequences);
  CHECK(tags.names() == labels("ADJ NOUN VERB"));
  CHECK(tags.encode(labels("VERB ADJ")) == std::vector<std::int32_t>{2, 0});
  CHECK(tags.decode(tags.encode(sequences[2])) == sequences[2]);
  CHECK(Labels(labels("O B-X I-X")).number("I-X") == 2);
  CHECK_THROWS_WITH_AS(tags.number("X"), Contains("'X' is no label; there are ADJ, NOUN, VERB"),
                       ValueError);
  CHECK_THROWS_WITH_AS(tags.name(3), Contains("there is no label 3; there are 3"), ValueError);
  CHECK_THROWS_AS(tags.name(-1), ValueError);
  CHECK_THROWS_AS(Labels(labels("A B A")), ValueError);
  CHECK_THROWS_AS(Labels(Words{}), ValueError);
  CHECK_THROWS_AS(Labels(Words{""}), ValueError);
}

TEST_CASE("edit distance: what is inserted, deleted or replaced, in whichever order") {
  const auto distance = [](const std::string& a, const std::string& b) {
    CHECK(edit_distance(a, b) == edit_distance(b, a));
    return edit_distance(a, b);
  };
  CHECK(distance("", "") == 0);
  CHECK(distance("", "abc") == 3);
  CHECK(distance("kitten", "sitting") == 3);
  CHECK(distance("abc", "abc") == 0);
  CHECK(distance("abcd", "bcda") == 2);
  CHECK(edit_distance(std::vector<std::int32_t>{1, 2, 3}, std::vector<std::int32_t>{1, 3}) == 1);
}
