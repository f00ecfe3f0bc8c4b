// ctc_loss, ctc_greedy and ctc_beam against all paths; the checks of all ops cover derivatives and
// other sizes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/sequence_losses.h>
#include <reel/autograd/tape.h>
#include <reel/nn/ctc.h>

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

Labels collapsed(Labels path, std::int32_t blank) {
  path.erase(std::unique(path.begin(), path.end()), path.end());
  std::erase(path, blank);
  return path;
}

// The probability of each label sequence of the first row, and how often it reads each symbol at
// each step, each time with the probability of the path.
struct Sum {
  double p = 0;
  std::vector<double> reads;
};
std::map<Labels, Sum> all_sequences(const Tensor& logits, Index length, std::int32_t blank) {
  const Index symbols = logits.size(2);
  const Tensor p = softmax(logits);
  std::map<Labels, Sum> sums;
  each_sequence(length, symbols, [&](const Labels& path) {
    double product = 1;
    for (Index t = 0; t < length; ++t) product *= p.at({t, 0, path[static_cast<std::size_t>(t)]});
    Sum& sum = sums[collapsed(path, blank)];
    sum.p += product;
    sum.reads.resize(static_cast<std::size_t>(length * symbols));
    for (Index t = 0; t < length; ++t)
      sum.reads[static_cast<std::size_t>(t * symbols + path[static_cast<std::size_t>(t)])] +=
          product;
  });
  return sums;
}

// All label sequences of at most `most` labels, as columns of targets, with 77 in the padding.
struct Targets {
  std::vector<Labels> all;
  Tensor labels, lengths;

  Targets(Index most, Index symbols, std::int32_t blank) {
    for (Index n = 0; n <= most; ++n)
      each_sequence(n, symbols, [&](const Labels& y) {
        if (std::ranges::find(y, blank) == y.end()) all.push_back(y);
      });
    const Index rows = std::ssize(all);
    labels = full({most, rows}, 77, i32);
    lengths = full({rows}, 0, i32);
    for (Index b = 0; b < rows; ++b) {
      const Labels& y = all[static_cast<std::size_t>(b)];
      lengths.edit<std::int32_t>()[static_cast<std::size_t>(b)] =
          static_cast<std::int32_t>(y.size());
      for (std::size_t i = 0; i < y.size(); ++i)
        labels.edit<std::int32_t>()[i * static_cast<std::size_t>(rows) +
                                    static_cast<std::size_t>(b)] = y[i];
    }
  }
};

// Compares loss and gradient of all targets, and the decoders, with all paths of a row of logits.
void compare(const Tensor& logits, Index length, std::int32_t blank) {
  const Index steps = logits.size(0), symbols = logits.size(2);
  const auto sums = all_sequences(logits, length, blank);
  const Targets targets(steps, symbols, blank);
  const Index rows = std::ssize(targets.all);
  Tensor repeated = broadcast_to(logits, {steps, rows, symbols}).copy();
  for (Index i = length * rows * symbols; i < repeated.size(); ++i)
    repeated.edit<double>()[static_cast<std::size_t>(i)] = not_a_number;
  const CtcLossOptions options{.lengths = full({rows}, static_cast<double>(length), i32),
                               .target_lengths = targets.lengths,
                               .blank = blank,
                               .reduction = LossReduction::sum,
                               .skip_impossible = true};
  Tape tape;
  const Tensor x = tape.watch(repeated);
  const Tensor loss = ctc_loss(x, targets.labels, options);
  const Tensor gradient = tape.gradient(loss, {x})[0], p = softmax(logits);
  double expected = 0, worst = 0;
  for (Index b = 0; b < rows; ++b) {
    const auto found = sums.find(targets.all[static_cast<std::size_t>(b)]);
    const bool possible = found != sums.end() && found->second.p > 0;
    if (possible) expected -= std::log(found->second.p);
    for (Index t = 0; t < steps; ++t)
      for (Index k = 0; k < symbols; ++k) {
        const auto i = static_cast<std::size_t>(t * symbols + k);
        const double slope =
            possible && t < length ? p.at({t, 0, k}) - found->second.reads[i] / found->second.p : 0;
        worst = std::max(worst, std::abs(gradient.at({t, b, k}) - slope));
      }
  }
  CHECK(loss.item() == doctest::Approx(expected).epsilon(1e-12));
  CHECK(worst < 1e-12);

  const Tensor one = full({1}, static_cast<double>(length), i32);
  const auto beams =
      nn::ctc_beam(slice(repeated, 1, 0, 1), one, {.beams = 1000, .blank = blank})[0];
  CHECK(std::ssize(beams) ==
        std::ranges::count_if(sums, [](const auto& item) { return item.second.p > 0; }));
  for (std::size_t i = 0; i < beams.size(); ++i) {
    CHECK(beams[i].log_probability ==
          doctest::Approx(std::log(sums.at(beams[i].labels).p)).epsilon(1e-12));
    if (i > 0) CHECK(beams[i].log_probability <= beams[i - 1].log_probability);
  }
  double best = -infinity;
  Labels best_path;
  each_sequence(length, symbols, [&](const Labels& path) {
    double log_p = 0;
    for (Index t = 0; t < length; ++t)
      log_p += std::log(p.at({t, 0, path[static_cast<std::size_t>(t)]}));
    if (log_p > best) {
      best = log_p;
      best_path = path;
    }
  });
  const auto greedy = nn::ctc_greedy(slice(repeated, 1, 0, 1), one, blank)[0];
  CHECK(greedy.labels == collapsed(best_path, blank));
  CHECK(greedy.log_probability == doctest::Approx(best).epsilon(1e-12));
}

}  // namespace

TEST_CASE("CTC against all paths: every target of every length, with NaN in the padding") {
  for (Index steps = 1; steps <= 4; ++steps)
    for (Index symbols = 1; symbols <= 3; ++symbols)
      for (Index length = 0; length <= steps; ++length)
        for (std::int32_t blank = 0; blank < symbols; ++blank) {
          CAPTURE(steps);
          CAPTURE(symbols);
          CAPTURE(length);
          CAPTURE(blank);
          compare(Rng(static_cast<std::uint64_t>(steps)).normal({steps, 1, symbols}, 0, 1, f64),
                  length, blank);
        }
}

TEST_CASE("CTC against all paths where logits are -inf") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    Rng rng(seed);
    Tensor logits = rng.normal({4, 1, 3}, 0, 1, f64);
    for (Index t = 0; t < 4; ++t)  // one or two of each step's three
      for (int i = 0; i < 2; ++i)
        logits.edit<double>()[static_cast<std::size_t>(3 * t + rng.integer(3))] = -infinity;
    compare(logits, 4, 0);
  }
}

TEST_CASE("CTC's gradients to the second order, with lengths, repeated labels and -inf") {
  Tensor mask = zeros({5, 2, 3}, i32);
  mask.edit<std::int32_t>()[1] = mask.edit<std::int32_t>()[14] = 1;
  const Tensor targets = integers({2, 2}, {2, 1, 2, 9});
  const auto loss = [&](std::span<const Tensor> in) {
    return ctc_loss(masked_fill(in[0], mask, -infinity), targets,
                    {.lengths = integers({2}, {5, 3}), .target_lengths = integers({2}, {2, 1})});
  };
  const auto report =
      check_gradients(loss, std::vector{Rng(4).normal({5, 2, 3}, 0, 1, f64)}, {.order = 2});
  CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("CTC's mean divides by the target's length, then by the rows") {
  const Tensor x = Rng(3).normal({6, 3, 4}, 0, 1, f64);
  const Tensor targets = integers({2, 3}, {1, 2, 0, 3, 0, 0}), counts = integers({3}, {2, 1, 0});
  const auto row = [&](Index b, Index count) {
    return ctc_loss(slice(x, 1, b, b + 1), slice(slice(targets, 1, b, b + 1), 0, 0, count),
                    {.reduction = LossReduction::sum})
        .item();
  };
  CHECK(ctc_loss(x, targets, {.target_lengths = counts}).item() ==
        doctest::Approx((row(0, 2) / 2 + row(1, 1) + row(2, 0)) / 3).epsilon(1e-13));
}

TEST_CASE("a row of a batch is as by itself, in CTC") {
  const Tensor x = Rng(5).normal({12, 5, 4}, 0, 1, f64), targets = random_labels({4, 5}, 3, 6);
  const std::vector<std::int32_t> lengths{12, 9, 8, 12, 10}, counts{4, 1, 0, 3, 2};
  Tape tape;
  const Tensor watched = tape.watch(x);
  const Tensor loss = ctc_loss(watched, targets,
                               {.lengths = integers({5}, lengths),
                                .target_lengths = integers({5}, counts),
                                .reduction = LossReduction::sum});
  const Tensor gradient = tape.gradient(loss, {watched})[0];
  const auto beams = nn::ctc_beam(x, integers({5}, lengths), {.beams = 5});
  double total = 0;
  for (Index b = 0; b < 5; ++b) {
    const Index length = lengths[static_cast<std::size_t>(b)],
                count = counts[static_cast<std::size_t>(b)];
    const auto part = [&](const Tensor& y, Index steps) {
      return slice(slice(y, 1, b, b + 1), 0, 0, steps);
    };
    Tape own;
    const Tensor row = own.watch(part(x, length));
    const Tensor alone = ctc_loss(row, part(targets, count), {.reduction = LossReduction::sum});
    total += alone.item();
    CHECK(same_bits(own.gradient(alone, {row})[0], part(gradient, length)));
    const auto found = nn::ctc_beam(row.detach(), {}, {.beams = 5})[0];
    const auto& together = beams[static_cast<std::size_t>(b)];
    REQUIRE(found.size() == together.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].labels == together[i].labels);
      CHECK(found[i].log_probability == together[i].log_probability);
    }
  }
  CHECK(loss.item() == doctest::Approx(total).epsilon(1e-13));
}

TEST_CASE("CTC over long sequences with large logits") {
  const Tensor x = Rng(2).normal({2000, 1, 5}, 0, 300, f64);
  const Tensor targets = random_labels({300, 1}, 4, 3);
  const auto loss = [&](DType dtype, double factor) {
    Tape tape;
    const Tensor logits = tape.watch((factor * x).to(dtype));
    const Tensor value = ctc_loss(logits, targets, {.reduction = LossReduction::sum});
    const Tensor gradient = tape.gradient(value, {logits})[0];
    CHECK(max(abs(sum(gradient, {-1}))).item() < 1e-5);
    return value.item();
  };
  CHECK(std::isfinite(loss(f64, 1)));
  CHECK(loss(f32, 0.001) == doctest::Approx(loss(f64, 0.001)).epsilon(1e-5));
}

TEST_CASE("CTC: NaN logits give a NaN loss") {
  Tensor x = Rng(2).normal({3, 2, 3}, 0, 1, f64);
  x.edit<double>()[4] = not_a_number;
  CHECK(std::isnan(ctc_loss(x, integers({1, 2}, {1, 2})).item()));
}

TEST_CASE("ctc_loss refuses wrong arguments") {
  Tensor x = Rng(2).normal({4, 2, 3}, 0, 1, f64);
  const auto has = [](const std::string& message, const char* words) {
    CAPTURE(message);
    CHECK(message.find(words) != std::string::npos);
  };
  const auto error = [&](const Tensor& targets, const CtcLossOptions& options = {}) {
    return error_of<ValueError>([&] { ctc_loss(x, targets, options); });
  };
  const Tensor targets = integers({3, 2}, {1, 2, 2, 2, 1, 2});
  has(error(targets),
      "ctc_loss: target 1 needs 5 steps for 3 labels and the blanks between equal ones, but row 1 "
      "has 4");
  has(error(integers({1, 2}, {1, 2}), {.lengths = integers({2}, {0, 1})}),
      "ctc_loss: target 0 needs 1 steps for 1 labels, but row 0 has 0");
  CHECK(ctc_loss(x, targets, {.skip_impossible = true}).item() > 0);
  has(error(integers({1, 2}, {1, 3})),
      "ctc_loss: label 3 at place 0 of target 1 is not among the 3");
  has(error(integers({1, 2}, {-1, 2})), "ctc_loss: label -1 at place 0 of target 0");
  has(error(integers({2, 2}, {1, 1, 2, 0})), "ctc_loss: place 1 of target 1 is the blank, 0");
  has(error(targets, {.blank = 3}), "ctc_loss: the blank 3 is not among the 3 symbols (0 to 2)");
  has(error(targets, {.blank = -1}), "ctc_loss: the blank -1 is not among");
  has(error(targets, {.lengths = integers({2}, {5, 1})}),
      "ctc_loss: lengths must be i32 [2], one for each row of logits [4, 2, 3], and between 0 and "
      "4");
  has(error(targets, {.target_lengths = integers({2}, {4, 1})}),
      "ctc_loss: target_lengths must be i32 [2], one for each row of targets [3, 2], and between "
      "0");
  has(error_of<ShapeError>([&] {
        ctc_loss(x, integers({2}, {1, 2}));
      }),
      "ctc_loss: the targets must be [S, 2]");
  has(error_of<DTypeError>([&] { ctc_loss(x, zeros({1, 2}, f64)); }), "ctc_loss");
  for (Index t = 0; t < 4; ++t) x.edit<double>()[static_cast<std::size_t>(6 * t + 4)] = -infinity;
  has(error(integers({1, 2}, {1, 1})), "ctc_loss: target 1 is impossible");
  CHECK(ctc_loss(x, integers({1, 2}, {1, 1}), {.skip_impossible = true}).item() > 0);
}

TEST_CASE("ctc_beam adds up paths that ctc_greedy does not see, and narrows down") {
  // Blank has 0.6 at both steps, but the label 1 has 1 - 0.36 in all.
  const Tensor x = log(tensor({2, 1, 2}, {0.6, 0.4, 0.6, 0.4}, f64));
  CHECK(nn::ctc_greedy(x)[0].labels.empty());
  const auto beams = nn::ctc_beam(x)[0];
  CHECK(beams[0].labels == Labels{1});
  CHECK(beams[0].log_probability == doctest::Approx(std::log(0.64)));

  const Tensor logits = Rng(8).normal({20, 1, 5}, 0, 2, f64);
  double before = -infinity;
  for (const Index width : {1, 4, 16, 64}) {
    const auto found = nn::ctc_beam(logits, {}, {.beams = width})[0];
    CHECK(std::ssize(found) == width);
    const Labels& labels = found[0].labels;
    const double exact = -ctc_loss(logits, integers({std::ssize(labels), 1}, labels)).item() *
                         static_cast<double>(labels.size());
    CHECK(found[0].log_probability <= exact + 1e-9);
    CHECK(found[0].log_probability >= before - 1e-9);
    before = found[0].log_probability;
  }
}

TEST_CASE("the CTC decoders refuse wrong arguments") {
  Tensor x = Rng(2).normal({4, 2, 3}, 0, 1, f64);
  CHECK(error_of<ValueError>([&] {
          nn::ctc_beam(x, {}, {.beams = 0});
        }).find("ctc_beam: beams must be positive, not 0") == 0);
  CHECK(error_of<ValueError>([&] {
          nn::ctc_greedy(x, {}, 3);
        }).find("ctc_greedy: the blank 3 is not among the 3 symbols") == 0);
  CHECK(error_of<ShapeError>([&] {
          nn::ctc_greedy(select(x, 1, 0));
        }).find("ctc_greedy: the logits must be [T, B, V]") == 0);
  CHECK(error_of<ValueError>([&] {
          nn::ctc_greedy(x, integers({2}, {1, 5}));
        }).find("ctc_greedy: lengths must be i32 [2], one for each row of logits") == 0);
  x.edit<double>()[15] = not_a_number;
  CHECK(error_of<ValueError>([&] {
          nn::ctc_beam(x);
        }).find("ctc_beam: the logits at step 2 of row 1 are no distribution") == 0);
  CHECK(nn::ctc_beam(x, integers({2}, {4, 2})).size() == 2);
}
