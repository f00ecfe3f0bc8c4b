// crf_loss, crf_decode, crf_marginals and nn::Crf against all label sequences; the checks of all
// ops cover derivatives and other sizes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/sequence_losses.h>
#include <reel/autograd/tape.h>
#include <reel/nn/crf.h>
#include <reel/optim/adam.h>

#include "label_sequences.h"
#include "testing.h"

using namespace reel;
using testing::each_sequence;
using testing::error_of;
using testing::random_labels;
using testing::same_bits;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

using Labels = testing::LabelSequence;

Tensor integers(const Shape& shape, const std::vector<std::int32_t>& values) {
  return tensor(shape, std::span(values));
}

// The scores of a CRF with T steps and K labels, as tensors and as numbers.
struct Scores {
  Tensor x, transitions, begin, end;

  Scores(Index steps, Index rows, Index k, std::uint64_t seed, DType dtype = f64)
      : x(Rng(seed).normal({steps, rows, k}, 0, 1, dtype)),
        transitions(Rng(seed + 1).normal({k, k}, 0, 1, dtype)),
        begin(Rng(seed + 2).normal({k}, 0, 1, dtype)),
        end(Rng(seed + 3).normal({k}, 0, 1, dtype)) {}

  std::vector<Tensor> all() const { return {x, transitions, begin, end}; }
  double of(Index b, const Labels& y) const {
    double sum = begin.at({y.front()}) + end.at({y.back()});
    for (std::size_t t = 0; t < y.size(); ++t) {
      sum += x.at({static_cast<Index>(t), b, y[t]});
      if (t > 0) sum += transitions.at({y[t - 1], y[t]});
    }
    return sum;
  }
};

void set(Tensor& x, std::initializer_list<Index> place, double value) {
  Index i = 0;
  int axis = 0;
  for (const Index along : place) i = i * x.size(axis++) + along;
  x.edit<double>()[static_cast<std::size_t>(i)] = value;
}

// What a row should give, from all its sequences.
struct Row {
  double log_sum = -infinity, best_score = -infinity;
  Labels best;
  std::vector<std::pair<Labels, double>> probabilities;

  Row(const Scores& scores, Index b, Index length, Index k) {
    double sum = 0;
    each_sequence(length, k, [&](const Labels& y) {
      const double score = scores.of(b, y);
      sum += std::exp(score);
      probabilities.emplace_back(y, std::exp(score));
      if (score > best_score) {
        best_score = score;
        best = y;
      }
    });
    for (auto& item : probabilities) item.second /= sum;
    log_sum = std::log(sum);
  }
};

// Adds factor times how often each score is part of a sequence.
void count(Tensors& counts, Index b, const Labels& y, double factor) {
  const auto add = [&](std::size_t i, std::initializer_list<Index> place) {
    Tensor& x = counts[i];
    set(x, place, x.at(place) + factor);
  };
  add(2, {y.front()});
  add(3, {y.back()});
  for (std::size_t t = 0; t < y.size(); ++t) {
    add(0, {static_cast<Index>(t), b, y[t]});
    if (t > 0) add(1, {y[t - 1], y[t]});
  }
}

double difference(const Tensor& a, const Tensor& b) { return max(abs(a - b)).item(); }

// Compares everything with all sequences, for rows of all lengths from 0 to T; the labels are each
// row's most probable but one, so that they are allowed. Returns how many rows had no sequence.
int compare(const Scores& scores) {
  const Index steps = scores.x.size(0), rows = scores.x.size(1), k = scores.x.size(2);
  Tensor labels = full({steps, rows}, 99, i32), lengths = full({rows}, 0, i32), x = scores.x;
  Tensors slopes;
  for (const Tensor& s : scores.all()) slopes.push_back(zeros(s.shape(), f64));
  Tensor marginals = zeros(x.shape(), f64), best = full({steps, rows}, -1, i32);
  std::vector<double> best_scores;
  double loss = 0;
  int impossible = 0;
  for (Index b = 0; b < rows; ++b) {
    const Index length = b % (steps + 1);
    best_scores.push_back(0);
    for (Index t = length; t < steps; ++t)
      for (Index j = 0; j < k; ++j) set(x, {t, b, j}, not_a_number);
    if (length == 0) continue;
    Row row(scores, b, length, k);
    if (row.log_sum == -infinity) {
      ++impossible;  // left out
      for (Index t = 0; t < length; ++t)
        for (Index j = 0; j < k; ++j) set(x, {t, b, j}, not_a_number);
      continue;
    }
    lengths.edit<std::int32_t>()[static_cast<std::size_t>(b)] = static_cast<std::int32_t>(length);
    std::ranges::sort(row.probabilities, std::greater(), &std::pair<Labels, double>::second);
    const bool second = row.probabilities.size() > 1 && row.probabilities[1].second > 0;
    const Labels y = row.probabilities[second ? 1 : 0].first;
    for (Index t = 0; t < length; ++t) {
      const auto i = static_cast<std::size_t>(t * rows + b);
      labels.edit<std::int32_t>()[i] = y[static_cast<std::size_t>(t)];
      best.edit<std::int32_t>()[i] = row.best[static_cast<std::size_t>(t)];
    }
    best_scores.back() = row.best_score;
    loss += row.log_sum - scores.of(b, y);
    count(slopes, b, y, -1);
    for (const auto& [sequence, p] : row.probabilities) {
      count(slopes, b, sequence, p);
      for (Index t = 0; t < length; ++t) {
        const Index label = sequence[static_cast<std::size_t>(t)];
        set(marginals, {t, b, label}, marginals.at({t, b, label}) + p);
      }
    }
  }
  const auto real = static_cast<double>(sum(lengths).item());
  for (const CrfReduction reduction :
       {CrfReduction::sum, CrfReduction::mean, CrfReduction::token_mean}) {
    if (reduction == CrfReduction::token_mean && real == 0) continue;
    const double divisor = reduction == CrfReduction::sum    ? 1
                           : reduction == CrfReduction::mean ? static_cast<double>(rows)
                                                             : real;
    Tape tape;
    const Tensors in{tape.watch(x), tape.watch(scores.transitions), tape.watch(scores.begin),
                     tape.watch(scores.end)};
    const Tensor value =
        crf_loss(in[0], in[1], in[2], in[3], labels, {.lengths = lengths, .reduction = reduction});
    CHECK(value.item() == doctest::Approx(loss / divisor).epsilon(1e-12));
    const auto gradients = tape.gradient(value, in);
    for (std::size_t i = 0; i < in.size(); ++i)
      CHECK(difference(divisor * gradients[i], slopes[i]) < 1e-12);
  }
  const auto [found, found_scores] =
      crf_decode(x, scores.transitions, scores.begin, scores.end, lengths);
  CHECK(same_bits(found, best));
  CHECK(difference(found_scores, tensor({rows}, best_scores, f64)) < 1e-12);
  const Tensor p = crf_marginals(x, scores.transitions, scores.begin, scores.end, lengths);
  CHECK(difference(p, marginals) < 1e-12);
  return impossible;
}

}  // namespace

TEST_CASE("a CRF against all label sequences of all lengths, with NaN in the padding") {
  for (Index steps = 1; steps <= 4; ++steps)
    for (Index k = 1; k <= 3; ++k) {
      CAPTURE(steps);
      CAPTURE(k);
      CHECK(compare(Scores(steps, 2 * (steps + 1), k, 10)) == 0);
    }
}

TEST_CASE("a CRF against all label sequences where some are forbidden") {
  int impossible = 0;
  for (Index steps = 1; steps <= 4; ++steps)
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      CAPTURE(steps);
      CAPTURE(seed);
      Scores scores(steps, steps + 1, 3, seed);
      Rng rng(seed + 100);
      for (Tensor* const x : {&scores.x, &scores.transitions, &scores.begin, &scores.end})
        for (double& score : x->edit<double>())
          if (rng.uniform() < 0.3) score = -infinity;
      impossible += compare(scores);
    }
  CHECK(impossible > 0);
}

TEST_CASE("a CRF's gradients to the second order where transitions are forbidden") {
  const Tensor mask = integers({3, 3}, {0, 1, 0, 0, 0, 1, 1, 0, 0});
  const Tensor no_begin = integers({3}, {0, 0, 1});
  const Tensor labels = integers({4, 2}, {0, 1, 2, 1, 2, 0, 1, 7});
  const Tensor lengths = integers({2}, {4, 3});
  const auto loss = [&](std::span<const Tensor> in) {
    return crf_loss(in[0], masked_fill(in[1], mask, -infinity),
                    masked_fill(in[2], no_begin, -infinity), in[3], labels, {.lengths = lengths});
  };
  const auto report = check_gradients(loss, Scores(4, 2, 3, 5).all(), {.order = 2});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("a row of a batch is as by itself, in a CRF") {
  const Scores scores(9, 7, 4, 3);
  const Tensor lengths = integers({7}, {9, 0, 4, 1, 9, 6, 2});
  const Tensor labels =
      crf_decode(Scores(9, 7, 4, 8).x, scores.transitions, scores.begin, scores.end).labels;
  const Tensor p = crf_marginals(scores.x, scores.transitions, scores.begin, scores.end, lengths);
  const auto [best, best_scores] =
      crf_decode(scores.x, scores.transitions, scores.begin, scores.end, lengths);
  double total = 0;
  for (Index b = 0; b < 7; ++b) {
    const Index length = lengths.values<std::int32_t>()[static_cast<std::size_t>(b)];
    if (length == 0) continue;
    const auto part = [&](const Tensor& x) { return slice(slice(x, 1, b, b + 1), 0, 0, length); };
    const Tensor x = part(scores.x);
    total += crf_loss(x, scores.transitions, scores.begin, scores.end, part(labels)).item();
    CHECK(same_bits(crf_marginals(x, scores.transitions, scores.begin, scores.end), part(p)));
    const auto alone = crf_decode(x, scores.transitions, scores.begin, scores.end);
    CHECK(same_bits(alone.labels, part(best)));
    CHECK(alone.scores.at({0}) == best_scores.at({b}));
  }
  const Tensor together = crf_loss(scores.x, scores.transitions, scores.begin, scores.end, labels,
                                   {.lengths = lengths, .reduction = CrfReduction::sum});
  CHECK(together.item() == doctest::Approx(total).epsilon(1e-13));
}

TEST_CASE("the sequence losses have the same bits for any number of threads") {
  const Scores scores(12, 150, 5, 3, f32);
  const Tensor labels = random_labels({12, 150}, 4, 7);
  const testing::ThreadsScope restored;
  const auto results = [&](int n) {
    set_threads(n);
    Tape tape;
    Tensors in;
    for (const Tensor& x : scores.all()) in.push_back(tape.watch(x));
    const Tensor loss = crf_loss(in[0], in[1], in[2], in[3], labels) +
                        ctc_loss(in[0], slice(labels, 0, 0, 3), {.skip_impossible = true});
    std::vector<Tensor> all = tape.gradient(loss, in);
    all.push_back(loss.detach());
    return all;
  };
  const auto alone = results(1);
  for (const int n : {2, 3}) {
    const auto other = results(n);
    for (std::size_t i = 0; i < alone.size(); ++i) CHECK(same_bits(alone[i], other[i]));
  }
}

TEST_CASE("a CRF over long sequences with large scores") {
  const Index steps = 2000, k = 4;
  Scores scores(steps, 1, k, 2);
  scores.x = 300 * scores.x;
  const Tensor labels = crf_decode(scores.x, scores.transitions, scores.begin, scores.end).labels;
  const auto loss = [&](DType dtype, double factor) {
    Tape tape;
    const Tensor x = tape.watch((factor * scores.x).to(dtype));
    const Tensor value = crf_loss(x, scores.transitions.to(dtype), scores.begin.to(dtype),
                                  scores.end.to(dtype), labels);
    const Tensor gradient = tape.gradient(value, {x})[0];
    CHECK(max(abs(sum(gradient, {-1}))).item() < 1e-6);
    return value.item();
  };
  CHECK(loss(f64, 1) >= 0);
  CHECK(loss(f64, 1) < steps * std::log(k));
  CHECK(loss(f32, 0.001) == doctest::Approx(loss(f64, 0.001)).epsilon(1e-5));
  const Tensor p = crf_marginals(scores.x, scores.transitions, scores.begin, scores.end);
  CHECK(max(abs(sum(p, {-1}) - 1)).item() < 1e-9);
}

TEST_CASE("a CRF refuses wrong arguments") {
  Scores scores(3, 2, 3, 1);
  const auto loss = [&](const Tensor& labels, const CrfLossOptions& options = {}) {
    return
        [=] { crf_loss(scores.x, scores.transitions, scores.begin, scores.end, labels, options); };
  };
  const Tensor labels = integers({3, 2}, {0, 1, 2, 0, 1, 3});
  const auto has = [](const std::string& message, const char* words) {
    CAPTURE(message);
    CHECK(message.find(words) != std::string::npos);
  };
  has(error_of<ValueError>(loss(labels)),
      "crf_loss: label 3 at step 2 of row 1 is not among the 3");
  has(error_of<ShapeError>(loss(full({2, 2}, 0, i32))), "crf_loss: the labels must be [T, B]");
  has(error_of<DTypeError>(loss(zeros({3, 2}, f64))), "crf_loss");
  const Tensor lengths = integers({2}, {3, 2});  // leaves the 3 out
  CHECK_NOTHROW(loss(labels, {.lengths = lengths})());
  has(error_of<ValueError>(loss(labels, {.lengths = integers({2}, {4, 1})})),
      "crf_loss: lengths must be i32 [2], one for each row of emissions [3, 2, 3]");
  const Tensor none = integers({2}, {0, 0});
  has(error_of<ValueError>(loss(labels, {.lengths = none, .reduction = CrfReduction::token_mean})),
      "crf_loss: there is nothing to average");
  CHECK(crf_loss(scores.x, scores.transitions, scores.begin, scores.end, labels, {.lengths = none})
            .item() == 0);

  const Scores allowed = scores;
  const auto forbidden = [&](Tensor Scores::*which, std::initializer_list<Index> place) {
    scores = allowed;
    set(scores.*which, place, -infinity);
    return error_of<ValueError>(loss(labels, {.lengths = lengths}));
  };
  has(forbidden(&Scores::transitions, {2, 1}),
      "crf_loss: label 1 at step 2 of row 0 is forbidden: the transition from 2 is -inf");
  has(forbidden(&Scores::begin, {1}), "label 1 at step 0 of row 1 is forbidden: its begin is -inf");
  has(forbidden(&Scores::end, {0}), "label 0 at step 1 of row 1 is forbidden: its end is -inf");
  has(forbidden(&Scores::x, {1, 0, 2}), "label 2 at step 1 of row 0 is forbidden: its emission");

  scores = allowed;
  for (Index j = 0; j < 3; ++j) set(scores.x, {1, 1, j}, -infinity);
  const auto decode = [&] { crf_decode(scores.x, scores.transitions, scores.begin, scores.end); };
  const auto marginals = [&] {
    crf_marginals(scores.x, scores.transitions, scores.begin, scores.end);
  };
  has(error_of<ValueError>(decode), "crf_decode: row 1 has no possible labels");
  has(error_of<ValueError>(marginals), "crf_marginals: row 1 has no possible labels");
  set(scores.x, {2, 0, 1}, not_a_number);
  has(error_of<ValueError>(decode),
      "crf_decode: the emission of label 1 at step 2 of row 0 is NaN");
}

TEST_CASE("span_constraints: what BIO and BIOES forbid") {
  using Pairs = std::vector<std::pair<Index, Index>>;
  const auto bio = nn::span_constraints({"O", "B-PER", "I-PER", "B-LOC"});
  CHECK(bio.transitions == Pairs{{0, 2}, {3, 2}});
  CHECK(bio.begin == std::vector<Index>{2});
  CHECK(bio.end.empty());
  const auto bioes = nn::span_constraints({"O", "B-X", "I-X", "E-X", "S-X", "E-Y"});
  const auto may_follow = [&](Index from, Index to) {
    return std::ranges::find(bioes.transitions, std::pair(from, to)) == bioes.transitions.end();
  };
  const std::vector<std::string> allowed{"110010", "001100", "001100",   // after O, B-X, I-X
                                         "110010", "110010", "110010"};  // after E-X, S-X, E-Y
  for (Index from = 0; from < 6; ++from)
    for (Index to = 0; to < 6; ++to)
      CHECK(may_follow(from, to) ==
            (allowed[static_cast<std::size_t>(from)][static_cast<std::size_t>(to)] == '1'));
  CHECK(bioes.begin == std::vector<Index>{2, 3, 5});
  CHECK(bioes.end == std::vector<Index>{1, 2});
  for (const char* wrong : {"", "X", "B-", "PER", "o", "B_PER"})
    CHECK(error_of<ValueError>([&] {
            nn::span_constraints({"O", wrong});
          }).find("span_constraints: label 1 is \"") == 0);
}

TEST_CASE("nn::Crf keeps forbidden parameters as they are, and never decodes what is forbidden") {
  const Params params(1);
  const nn::Crf crf(params / "crf", 5, nn::span_constraints({"O", "B-X", "I-X", "B-Y", "I-Y"}));
  CHECK(params.count() == 25 + 10);
  const Tensor labels = integers({4, 2}, {1, 0, 2, 3, 0, 4, 3, 0});
  Tape tape;
  const Tensor x = tape.watch(Rng(3).normal({4, 2, 5}, 0, 5));
  const Tensor loss = crf.loss(x, labels);
  const Gradients gradients = tape.gradient(loss, params);
  const Tensor slopes = gradients[crf.transitions];
  int zeros_found = 0;
  for (Index i = 0; i < 5; ++i)
    for (Index j = 0; j < 5; ++j) zeros_found += slopes.at({i, j}) == 0;
  CHECK(zeros_found == 6);  // from O, B-X and I-X to I-Y, and from O, B-Y and I-Y to I-X
  CHECK(gradients[crf.begin].at({2}) == 0);
  CHECK(gradients[crf.begin].at({4}) == 0);
  CHECK(gradients[crf.end].at({2}) != 0);

  const Tensor best = crf.decode(x).labels;  // on a tape that is used up
  for (Index b = 0; b < 2; ++b)
    for (Index t = 0; t < 4; ++t) {
      const double label = best.at({t, b}), before = t > 0 ? best.at({t - 1, b}) : 0;
      if (label == 2 || label == 4) CHECK((before == label || before == label - 1));
    }
  const Tensor p = crf.marginals(x, integers({2}, {4, 2}));
  CHECK(p.at({0, 0, 2}) == 0);
  CHECK(p.at({3, 1, 1}) == 0);
  CHECK(sum(p).item() == doctest::Approx(6));
  CHECK(error_of<ValueError>([&] {
          crf.loss(x.detach(), integers({4, 2}, {1, 0, 4, 3, 0, 4, 3, 0}));
        }).find("label 4 at step 1 of row 0 is forbidden: the transition from 1 is -inf") !=
        std::string::npos);
}

TEST_CASE("nn::Crf learns which labels follow each other") {
  const Params params(1);
  const nn::Crf crf(params, 3);
  optim::Adam adam(params, {.learning_rate = 0.1});
  const Tensor x = zeros({6, 1, 3}), labels = integers({6, 1}, {2, 0, 1, 2, 0, 1});
  double loss = 0;
  for (int step = 0; step < 100; ++step) {
    Tape tape;
    const Tensor value = crf.loss(x, labels, {.reduction = CrfReduction::token_mean});
    loss = value.item();
    adam.step(tape.gradient(value, params));
  }
  CHECK(loss < 0.05);
  CHECK(same_bits(crf.decode(x).labels, labels));
}

TEST_CASE("nn::Crf refuses constraints on labels that it does not have") {
  const Params params(1);
  CHECK(error_of<ValueError>([&] {
          nn::Crf(params / "a", 2, {.transitions = {{0, 2}}});
        }).find("Crf a: a constraint is on label 2, but there are 2 (0 to 1)") == 0);
  CHECK(error_of<ValueError>([&] {
          nn::Crf(params / "a", 2, {.end = {-1}});
        }).find("Crf a: a constraint is on label -1") == 0);
  CHECK(error_of<ValueError>([&] { nn::Crf(params / "a", 0); }).find("Crf a: count must be") == 0);
}
