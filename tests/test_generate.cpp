#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <set>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/error.h>
#include <reel/autograd/ops.h>
#include <reel/nn/generate/sample.h>

#include "temporary_directory.h"

using namespace reel;
using nn::sample;
using nn::Sampling;

namespace {

std::vector<double> frequencies(const Tensor& logits, const Sampling& sampling, int draws) {
  std::vector<double> counts(static_cast<std::size_t>(logits.size()));
  Rng rng(7);
  for (int i = 0; i < draws; ++i)
    counts[static_cast<std::size_t>(sample(logits, sampling, rng))] += 1.0 / draws;
  return counts;
}

std::set<int> support(const Tensor& logits, const Sampling& sampling) {
  std::set<int> tokens;
  Rng rng(3);
  for (int i = 0; i < 2000; ++i) tokens.insert(sample(logits, sampling, rng));
  return tokens;
}

// Five standard deviations of a binomial frequency.
void check_close(const std::vector<double>& found, const std::vector<double>& expected, int draws) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(found[i] - expected[i]) <=
          5 * std::sqrt(expected[i] * (1 - expected[i]) / draws) + 1e-12);
  }
}

Tensor logs(std::initializer_list<double> probabilities, DType dtype = f64) {
  std::vector<double> values;
  for (double p : probabilities) values.push_back(std::log(p));
  return tensor({static_cast<Index>(values.size())}, values, dtype);
}

}  // namespace

TEST_CASE("sample: frequencies follow softmax(logits / temperature)") {
  constexpr int draws = 40'000;
  for (const DType dtype : {f32, f64}) {
    const Tensor logits = logs({0.1, 0.6, 0.05, 0.25}, dtype);
    check_close(frequencies(logits, {}, draws), {0.1, 0.6, 0.05, 0.25}, draws);
    const double sum = 0.01 + 0.36 + 0.0025 + 0.0625;
    check_close(frequencies(logits, {.temperature = 0.5}, draws),
                {0.01 / sum, 0.36 / sum, 0.0025 / sum, 0.0625 / sum}, draws);
  }
}

TEST_CASE("sample: top-k and top-p renormalise what they keep") {
  constexpr int draws = 40'000;
  const Tensor logits = logs({0.1, 0.6, 0.05, 0.25});
  check_close(frequencies(logits, {.top_k = 2}, draws), {0, 0.6 / 0.85, 0, 0.25 / 0.85}, draws);
  check_close(frequencies(logits, {.top_p = 0.9}, draws), {0.1 / 0.95, 0.6 / 0.95, 0, 0.25 / 0.95},
              draws);
}

TEST_CASE("sample: min-p keeps what has its share of the largest probability, and renormalises") {
  constexpr int draws = 40'000;
  const Tensor logits = logs({0.1, 0.6, 0.05, 0.25});
  check_close(frequencies(logits, {.min_p = 0.4}, draws), {0, 0.6 / 0.85, 0, 0.25 / 0.85}, draws);
  CHECK(support(logits, {.min_p = 0.08}) == std::set{0, 1, 2, 3});
  CHECK(support(logits, {.min_p = 0.09}) == std::set{0, 1, 3});
  CHECK(support(logits, {.min_p = 0.41}) == std::set{1, 3});
  CHECK(support(logits, {.min_p = 1}) == std::set{1});
  CHECK(support(tensor({3}, {2, 1, 2}), {.min_p = 1}) == std::set{0, 2});
  // of the shares at temperature 2, 0.18, 0.42, 0.13, 0.27, the least is 0.29 times the largest
  CHECK(support(logits, {.temperature = 2, .min_p = 0.28}) == std::set{0, 1, 2, 3});
  CHECK(support(logits, {.temperature = 2, .min_p = 0.30}) == std::set{0, 1, 3});
  CHECK(support(logits, {.top_k = 3, .min_p = 0.01}) == std::set{0, 1, 3});
  CHECK(support(logits, {.top_p = 0.96, .min_p = 0.3}) == std::set{1, 3});
}

TEST_CASE("sample: a repetition penalty divides positive logits, and multiplies others") {
  const Tensor logits = tensor({4}, {2, 1.5, -1, -1.5}, f64);
  Rng rng(1);
  const auto greedy = [&](double penalty, std::initializer_list<std::int32_t> seen) {
    return sample(logits, {.repetition_penalty = penalty, .temperature = 0}, std::span(seen), rng);
  };
  CHECK(greedy(1, {0}) == 0);
  CHECK(greedy(1.3, {0}) == 0);
  CHECK(greedy(1.4, {0}) == 1);
  CHECK(greedy(1.4, {0, 0, 1, 1, 1}) == 0);  // each counts once
  CHECK(greedy(0.7, {1}) == 1);              // below 1 it favours what was seen

  // The logits become 1, 1.5, -1, -3.
  constexpr int draws = 40'000;
  std::vector<double> counts(4), expected;
  for (int i = 0; i < draws; ++i)
    counts[static_cast<std::size_t>(sample(logits, {.repetition_penalty = 2},
                                           std::vector<std::int32_t>{0, 3}, rng))] += 1.0 / draws;
  const double sum = std::exp(1) + std::exp(1.5) + std::exp(-1) + std::exp(-3);
  for (const double x : {1.0, 1.5, -1.0, -3.0}) expected.push_back(std::exp(x) / sum);
  check_close(counts, expected, draws);
}

TEST_CASE("sample: without new settings the draws are those of before there were any") {
  const std::vector<std::pair<Sampling, std::vector<std::int32_t>>> drawn{
      {{}, {3, 20, 20, 16, 35, 20, 35, 20, 0, 20, 20, 35}},
      {{.temperature = 0.7}, {5, 20, 20, 20, 35, 20, 35, 20, 0, 20, 20, 35}},
      {{.top_k = 5}, {20, 35, 20, 20, 0, 20, 3, 20, 20, 20, 35, 37}},
      {{.temperature = 1.3, .top_p = 0.8}, {20, 0, 35, 20, 7, 35, 18, 35, 20, 35, 0, 5}},
      {{.temperature = 0.9, .top_k = 9, .top_p = 0.7},
       {20, 35, 20, 20, 35, 20, 35, 20, 20, 20, 35, 0}}};
  for (const auto& [sampling, tokens] : drawn)
    for (const DType dtype : {f32, f64}) {
      const Tensor logits = Rng(5).normal({40}, 0, 2, dtype);
      Rng rng(11);
      std::vector<std::int32_t> found;
      for (std::size_t i = 0; i < tokens.size(); ++i)
        found.push_back(sample(logits, sampling, rng));
      CHECK(found == tokens);
    }
}

TEST_CASE("sample: the rows of a batch draw from generators of their own") {
  const Tensor logits = Rng(5).normal({4, 30}, 0, 2);
  const Sampling sampling{
      .repetition_penalty = 1.5, .temperature = 1.2, .top_p = 0.9, .min_p = 0.01};
  const std::vector<std::vector<std::int32_t>> seen{{}, {1, 2}, {29, 3, 3}, {0}};
  std::vector<Rng> rngs = nn::row_streams(Rng(2), 4), single = nn::row_streams(Rng(2), 7);
  for (int i = 0; i < 50; ++i) {
    const Tensor tokens = sample(logits, sampling, rngs, seen);
    CHECK(tokens.shape() == Shape{4});
    for (std::size_t b = 0; b < 4; ++b)
      CHECK(tokens.values<std::int32_t>()[b] ==
            sample(select(logits, 0, static_cast<Index>(b)), sampling, seen[b], single[b]));
  }
  CHECK(rngs[0].state().position == 50);
  std::set<std::uint64_t> streams;
  for (const Rng& rng : single) streams.insert(rng.state().stream);
  CHECK(streams.size() == 7);

  // An error in a later row has no effect on the earlier ones.
  const auto before = rngs[0].state();
  const Tensor broken = tensor({4, 2}, {0, 0, 0, 0, 0, NAN, 0, 0});
  CHECK_THROWS_WITH_AS(sample(broken, {}, rngs),
                       doctest::Contains("sample: logit 1 of row 2 is nan"), ValueError);
  CHECK(rngs[0].state() == before);
  CHECK_THROWS_WITH_AS(sample(zeros({3, 2}), {}, rngs),
                       doctest::Contains("logits have shape [3, 2], not [4, V]"), ShapeError);
  CHECK_THROWS_WITH_AS(sample(logits, {.repetition_penalty = 2}, rngs),
                       doctest::Contains("sample: there are 0 lists of seen tokens for 4 rows"),
                       ShapeError);
  CHECK_THROWS_AS(nn::row_streams(Rng(1), -1), ValueError);
}

TEST_CASE("sample: supports of top-k and top-p") {
  const Tensor logits = logs({0.1, 0.6, 0.05, 0.25});
  CHECK(support(logits, {}) == std::set{0, 1, 2, 3});
  CHECK(support(logits, {.top_k = 1}) == std::set{1});
  CHECK(support(logits, {.top_k = 3}) == std::set{0, 1, 3});
  CHECK(support(logits, {.top_k = 4}) == std::set{0, 1, 2, 3});
  CHECK(support(logits, {.top_k = 1000}) == std::set{0, 1, 2, 3});
  CHECK(support(logits, {.top_p = 1e-300}) == std::set{1});
  CHECK(support(logits, {.top_p = 0.59}) == std::set{1});
  CHECK(support(logits, {.top_p = 0.61}) == std::set{1, 3});
  CHECK(support(logits, {.top_p = 0.84}) == std::set{1, 3});
  CHECK(support(logits, {.top_p = 0.96}) == std::set{0, 1, 2, 3});
  // of the top 2, 0.6 / 0.85 = 0.71 is the share of the first
  CHECK(support(logits, {.top_k = 2, .top_p = 0.7}) == std::set{1});
  CHECK(support(logits, {.top_k = 2, .top_p = 0.72}) == std::set{1, 3});
  // the temperature comes first: at 2 the shares are 0.18, 0.42, 0.13, 0.27
  CHECK(support(logits, {.temperature = 2, .top_p = 0.61}) == std::set{1, 3});
  CHECK(support(logits, {.temperature = 2, .top_p = 0.72}) == std::set{0, 1, 3});
}

TEST_CASE(
    "sample: temperature 0 takes the largest logit, the first one in case of ties, and draws "
    "nothing") {
  Rng rng(1);
  CHECK(sample(tensor({4}, {1, 3, 3, 2}), {.temperature = 0}, rng) == 1);
  CHECK(sample(tensor({1, 1, 3}, {-5, -4, -6}, f64), {.temperature = 0}, rng) == 1);
  CHECK(sample(tensor({1}, {0}), {.temperature = 0}, rng) == 0);
  CHECK(rng.state() == Rng(1).state());
  CHECK(support(tensor({4}, {1, 3, 3, 2}), {.top_k = 1}) == std::set{1});
}

TEST_CASE("sample: extreme logits and temperatures stay in range") {
  const Tensor wide = tensor({3}, {-1e30, 1e30, 0});
  CHECK(support(wide, {}) == std::set{1});
  CHECK(support(wide, {.temperature = 1e-300}) == std::set{1});
  CHECK(support(tensor({2}, {-1.7e308, 1.7e308}, f64), {}) == std::set{1});
  CHECK(support(tensor({2}, {1, 1}), {.temperature = 5e-324}) == std::set{0, 1});
  CHECK(support(tensor({3}, {1, 2, 3}), {.temperature = 1e300}) == std::set{0, 1, 2});
  CHECK(support(tensor({1}, {-3}), {}) == std::set{0});
}

TEST_CASE("sample: the same random state gives the same tokens, one draw per token") {
  const Tensor logits = Rng(5).normal({65});
  Rng a(9), b(9);
  for (int i = 0; i < 100; ++i) CHECK(sample(logits, {}, a) == sample(logits, {}, b));
  CHECK(a.state().position == 100);
}

TEST_CASE("sample: allocates no heap memory once it is warm") {
  const Tensor logits = Rng(5).normal({300});
  const Sampling sampling{.temperature = 0.8, .top_k = 40, .top_p = 0.9};
  Rng rng(1);
  sample(logits, sampling, rng);
  const auto before = pool::statistics().heap_allocations;
  for (int i = 0; i < 100; ++i) sample(logits, sampling, rng);
  CHECK(pool::statistics().heap_allocations == before);
}

TEST_CASE("sample: bad settings and logits") {
  Rng rng(1);
  const Tensor logits = tensor({2}, {0, 1});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const auto message = [&](const Sampling& sampling) {
    return message_of<ValueError>([&] { sample(logits, sampling, rng); });
  };
  CHECK(contains(message({.temperature = -1}), "temperature is -1, not a finite number >= 0"));
  CHECK(contains(message({.temperature = nan}), "temperature is nan"));
  CHECK(contains(message({.temperature = infinity}), "temperature is inf"));
  CHECK(contains(message({.top_k = -1}), "top_k is -1"));
  CHECK(contains(message({.top_p = 0}), "top_p is 0, not in (0, 1] (" __FILE__ ":"));
  CHECK(contains(message({.top_p = 1.01}), "top_p is 1.01"));
  CHECK(contains(message({.top_p = nan}), "top_p is nan"));
  CHECK(contains(message({.min_p = -0.1}), "min_p is -0.1, not in [0, 1] (0 keeps all) ("));
  CHECK(contains(message({.min_p = nan}), "min_p is nan"));
  CHECK(contains(message({.repetition_penalty = 1.1}),
                 "sample: a repetition penalty needs the tokens that were seen; pass them ("));
  const auto message_seen = [&](const Sampling& sampling, std::vector<std::int32_t> seen) {
    return message_of<ValueError>([&] { sample(logits, sampling, seen, rng); });
  };
  CHECK(contains(message_seen({.repetition_penalty = 0}, {}),
                 "repetition_penalty is 0, not a finite number > 0 (1 changes nothing) ("));
  CHECK(contains(message_seen({.repetition_penalty = infinity}, {}), "repetition_penalty is inf"));
  CHECK(
      contains(message_seen({.repetition_penalty = 2}, {0, 2}),
               "sample: seen token 2 at position 1 is not among the 2 tokens (0 to 1) (" __FILE__));
  for (const double bad : {nan, infinity})
    CHECK(contains(message_of<ValueError>([&] {
                     sample(tensor({3}, {0, 1, bad}), {.temperature = 0}, rng);
                   }),
                   "sample: logit 2 is "));
  CHECK_THROWS_WITH_AS(
      sample(tensor({2, 2}, {1, 2, 3, 4}), {}, rng),
      doctest::Contains("have shape [2, 2], not [V] or one row [1, V] (" __FILE__ ":"), ShapeError);
  CHECK_THROWS_AS(sample(tensor({2, 1}, {1, 2}), {}, rng), ShapeError);
  CHECK_THROWS_AS(sample(Tensor({0}, f32), {}, rng), ShapeError);
  CHECK_THROWS_AS(sample(scalar(1), {}, rng), ShapeError);
  CHECK_THROWS_AS(sample(Tensor(), {}, rng), ShapeError);
  CHECK_THROWS_WITH_AS(sample(zeros({3}, i32), {}, rng),
                       doctest::Contains("not f32 or f64 (" __FILE__ ":"), DTypeError);
  CHECK(rng.state() == Rng(1).state());
}

TEST_CASE("a forbidden symbol has probability 0") {
  Rng rng(3);
  const Tensor logits = tensor({3}, {0, -INFINITY, 0});
  std::array<int, 3> counts{};
  for (int i = 0; i < 1000; ++i) ++counts.at(static_cast<std::size_t>(nn::sample(logits, {}, rng)));
  CHECK(counts[1] == 0);
  CHECK(std::abs(counts[0] - 500) < 80);
  for (int i = 0; i < 100; ++i) {
    CHECK(nn::sample(tensor({3}, {-INFINITY, 1, -INFINITY}), {.top_k = 2}, rng) == 1);
    CHECK(nn::sample(tensor({2}, {-INFINITY, -700}, f64), {.temperature = 1e-300}, rng) == 1);
    CHECK(nn::sample(tensor({3}, {1, -INFINITY, -INFINITY}), {.top_p = 1}, rng) == 0);
  }
  CHECK(nn::sample(logits, {.temperature = 0}, rng) == 0);
  CHECK_THROWS_WITH_AS(
      nn::sample(full({3}, -INFINITY), {}, rng),
      doctest::Contains("sample: nothing is left to choose: all 3 logits are -inf, which forbids a "
                        "symbol (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_WITH_AS(
      nn::sample(tensor({2}, {-INFINITY, NAN}), {}, rng),
      doctest::Contains("sample: logit 1 is nan; the model has diverged (" __FILE__ ":"),
      ValueError);
  CHECK_THROWS_WITH_AS(nn::sample(tensor({2}, {INFINITY, 0}), {}, rng),
                       doctest::Contains("sample: logit 0 is inf"), ValueError);
}
