// From sequences to batches: orders, splits, padding, buckets.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/datasets/bucketed_batches.h>
#include <reel/datasets/pad.h>
#include <reel/datasets/permutation.h>
#include <reel/datasets/splits.h>
#include <reel/nn/cells/gru.h>

#include "testing.h"

using namespace reel;
using namespace reel::datasets;
using namespace reel::testing;
using doctest::Contains;

namespace {

using Tokens = std::vector<std::int32_t>;
using Numbers = std::vector<double>;
using Indices = std::vector<Index>;

Indices counting(Index n) {
  Indices all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), Index{0});
  return all;
}

Indices sorted(Indices all) {
  std::ranges::sort(all);
  return all;
}

// Lengths as of sentences: most are short.
Indices some_lengths(Index n) {
  Rng rng(11);
  Indices lengths;
  for (Index i = 0; i < n; ++i) lengths.push_back(1 + rng.integer(1 + rng.integer(80)));
  return lengths;
}

}  // namespace

TEST_CASE("permutation: every item once, the same for the same state, another in every epoch") {
  for (const Index n : {0, 1, 2, 17, 1000}) {
    Rng a(3), b(3);
    const Indices order = permutation(n, a);
    CHECK(sorted(order) == counting(n));
    CHECK(order == permutation(n, b));
    CHECK(a.state() == b.state());
    CHECK(a.state().position == static_cast<std::uint64_t>(std::max<Index>(n - 1, 0)));
  }
  const Rng rng(3);
  Rng moved = rng;
  moved.skip(10);
  const Indices first = permutation(100, rng, 1);
  CHECK(first == permutation(100, moved, 1));
  CHECK(first != permutation(100, rng, 2));
  CHECK(first != permutation(100, Rng(4), 1));
  CHECK(first != permutation(100, rng.stream("other"), 1));
  CHECK_THROWS_WITH_AS(permutation(5, rng, 0), Contains("the epoch is 0, but they count from 1"),
                       ValueError);
  CHECK_THROWS_WITH_AS(permutation(-1, rng, 1), Contains("n is -1, negative (" __FILE__),
                       ValueError);
}

TEST_CASE("permutation: all orders are equally likely") {
  Rng rng(5);
  std::map<Indices, int> counts;
  constexpr int draws = 24'000;
  for (int i = 0; i < draws; ++i) ++counts[permutation(4, rng)];
  REQUIRE(counts.size() == 24);
  double chi_squared = 0;  // 23 degrees of freedom: above 49.7 once in a thousand
  for (const auto& [order, count] : counts) chi_squared += (count - 1000.0) * (count - 1000) / 1000;
  CHECK(chi_squared < 49.7);
}

TEST_CASE("split: into three consecutive parts") {
  const Tokens tokens{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const auto [train, valid, test] = split(tokens, 0.7, 0.2);
  CHECK(Tokens(train.begin(), train.end()) == Tokens{0, 1, 2, 3, 4, 5, 6});
  CHECK(Tokens(valid.begin(), valid.end()) == Tokens{7, 8});
  CHECK(Tokens(test.begin(), test.end()) == Tokens{9, 10});
  CHECK(split(tokens, 0.5, 0).valid.empty());
  CHECK(split(tokens, 1, 0).test.empty());
  const auto message = [&](double train_frac, double valid_frac) {
    return error_of<ValueError>([&] { split(tokens, train_frac, valid_frac); });
  };
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(message(0, 0.5).starts_with("split: train_frac is 0, not in (0, 1]"));
  CHECK(message(nan, 0.5).starts_with("split: train_frac is nan"));
  CHECK(message(0.8, 0.3).starts_with("split: valid_frac is 0.3, not in [0, 1 - train_frac]"));
  CHECK(message(0.8, -0.1).starts_with("split: valid_frac is -0.1"));
  CHECK(message(0.8, nan).starts_with("split: valid_frac is nan"));
}

TEST_CASE("split: no fractions lose or repeat a token") {
  const Tokens tokens(137);
  Rng rng(1);
  for (int i = 0; i < 1000; ++i) {
    const double train_frac = 1 - rng.uniform(), valid_frac = rng.uniform() * (1 - train_frac);
    for (const double valid : {valid_frac, 1 - train_frac}) {
      const TestSplit parts = split(tokens, train_frac, valid);
      REQUIRE(parts.train.data() + parts.train.size() == parts.valid.data());
      REQUIRE(parts.valid.data() + parts.valid.size() == parts.test.data());
      REQUIRE(parts.test.data() + parts.test.size() == tokens.data() + tokens.size());
      REQUIRE(parts.train.size() == split(tokens, train_frac).train.size());
    }
  }
}

TEST_CASE("split: items at random, by the seed") {
  const ItemSplit parts = split_items(100, 0.8, 0.1, Rng(1));
  CHECK(parts.train.size() == 80);
  CHECK(parts.valid.size() == 10);
  CHECK(parts.test.size() == 10);
  Indices all;
  for (const Indices& part : {parts.train, parts.valid, parts.test}) {
    CHECK(part == sorted(part));
    all.insert(all.end(), part.begin(), part.end());
  }
  CHECK(sorted(all) == counting(100));
  CHECK(parts.valid != Indices{80, 81, 82, 83, 84, 85, 86, 87, 88, 89});
  CHECK(split_items(100, 0.8, 0.1, Rng(1)).test == parts.test);
  CHECK(split_items(100, 0.8, 0.1, Rng(2)).test != parts.test);
  CHECK_THROWS_AS(split_items(-1, 0.8, 0.1, Rng(1)), ValueError);
  CHECK_THROWS_AS(split_items(10, 0.8, 0.9, Rng(1)), ValueError);
}

TEST_CASE("pad: token sequences") {
  const std::vector<Tokens> sequences{{1, 2, 3}, {}, {4}};
  const auto [x, lengths] = pad(sequences, -1);
  CHECK(x.shape() == Shape{3, 3});
  CHECK(x.dtype() == i32);
  CHECK(x.to_vector() == Numbers{1, -1, 4, 2, -1, -1, 3, -1, -1});
  CHECK(lengths.dtype() == i32);
  CHECK(lengths.shape() == Shape{3});
  CHECK(lengths.to_vector() == Numbers{3, 0, 1});
  CHECK(pad(std::vector<Tokens>{{}, {}}, 0).x.shape() == Shape{0, 2});
  CHECK_THROWS_WITH_AS(pad(std::vector<Tokens>{}, 0),
                       Contains("pad: there are no sequences (" __FILE__), ValueError);
  CHECK_THROWS_AS(pad(sequences, 3'000'000'000), ValueError);
}

TEST_CASE("pad: sequences of feature vectors, in every dtype") {
  for (const DType dtype : {f32, f64, i32}) {
    const std::vector<Tensor> sequences{tensor({1, 2}, {1, 2}, dtype),
                                        tensor({3, 2}, {3, 4, 5, 6, 7, 8}, dtype)};
    const auto [x, lengths] = pad(sequences, 9);
    CHECK(x.shape() == Shape{3, 2, 2});
    CHECK(x.dtype() == dtype);
    CHECK(x.to_vector() == Numbers{1, 2, 3, 4, 9, 9, 5, 6, 9, 9, 7, 8});
    CHECK(lengths.to_vector() == Numbers{1, 3});
  }
  CHECK(pad(std::vector<Tensor>{zeros({2}), ones({3})}).x.to_vector() == Numbers{0, 1, 0, 1, 0, 1});
  CHECK(pad(std::vector<Tensor>{zeros({2, 4, 5})}).x.shape() == Shape{2, 1, 4, 5});
  CHECK(pad(std::vector<Tensor>{zeros({2, 0})}).x.shape() == Shape{2, 1, 0});
}

TEST_CASE("pad: tensors that do not go together are named") {
  using List = std::vector<Tensor>;
  CHECK_THROWS_WITH_AS(pad(List{zeros({2, 3}), zeros({5, 3}), zeros({2, 4})}),
                       Contains("pad: sequence 2 is f32 [2, 4], but sequence 0 is f32 [2, 3]"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(pad(List{zeros({2, 3}), zeros({2, 3, 1})}), Contains("sequence 1 is"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(pad(List{zeros({2, 3}), zeros({2, 3}, f64)}), Contains("sequence 1 is f64"),
                       DTypeError);
  CHECK_THROWS_WITH_AS(pad(List{}), Contains("there are no sequences"), ValueError);
  CHECK_THROWS_WITH_AS(pad(List{zeros({2}), Tensor()}), Contains("sequence 1 is undefined"),
                       ValueError);
  CHECK_THROWS_WITH_AS(pad(List{scalar(1)}), Contains("sequence 0 is a scalar"), ShapeError);
  CHECK_THROWS_WITH_AS(pad(List{zeros({1, 1, 1, 1})}), Contains("more than 4 axes"), ShapeError);
  CHECK_THROWS_AS(pad(List{zeros({2}, i32)}, 0.5), ValueError);
}

TEST_CASE("length_mask: 1 in the sequences and 0 in the padding") {
  const Tensor lengths = tensor({3}, {2, 0, 3}, i32);
  const Numbers expected{1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0};
  for (const DType dtype : {f32, f64, i32}) {
    const Tensor mask = length_mask(lengths, 4, dtype);
    CHECK(mask.shape() == Shape{4, 3});
    CHECK(mask.dtype() == dtype);
    CHECK(mask.to_vector() == expected);
  }
  CHECK_THROWS_WITH_AS(length_mask(lengths, 2),
                       Contains("length_mask: the length of row 2 is 3, not in 0 .. 2 (" __FILE__),
                       ValueError);
  CHECK_THROWS_WITH_AS(length_mask(tensor({2}, {1, -1}, i32), 2), Contains("row 1 is -1"),
                       ValueError);
  CHECK_THROWS_AS(length_mask(lengths, -1), ValueError);
  CHECK_THROWS_AS(length_mask(zeros({3}), 2), DTypeError);
  CHECK_THROWS_AS(length_mask(zeros({1, 3}, i32), 2), ShapeError);
}

TEST_CASE("pad: a padded batch has the outputs and the loss of its sequences") {
  const Params params(1);
  const nn::Gru gru(params, 3, 4);
  Rng rng(2);
  const std::vector<Tensor> sequences{rng.normal({2, 3}), rng.normal({5, 3}), rng.normal({1, 3})};
  const auto [x, lengths] = pad(sequences, std::numeric_limits<double>::quiet_NaN());
  const Tensor y = gru(x, {.lengths = lengths}).y;
  const Tensor mask = length_mask(lengths, y.size(0));
  double sum_alone = 0;
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const Tensor alone = gru(reshape(sequences[b], {-1, 1, 3})).y;
    const Index steps = alone.size(0), row = static_cast<Index>(b);
    CHECK(slice(slice(y, 1, row, row + 1), 0, 0, steps).to_vector() == alone.to_vector());
    sum_alone += sum(alone).item();
  }
  CHECK(sum(y * reshape(mask, {-1, 3, 1})).item() == doctest::Approx(sum_alone));
  CHECK(sum(mask).item() == 8);
}

TEST_CASE("buckets: every sequence once an epoch, in full batches but one") {
  for (const Index n : {1, 2, 31, 32, 33, 500})
    for (const Index size : {1, 7, 32, 1000})
      for (const Index pool : {1, 3, 1000}) {
        const BucketedBatches batches(some_lengths(n), {.batch_size = size, .pool = pool}, Rng(1));
        REQUIRE(batches.count() == (n + size - 1) / size);
        Indices all;
        Index incomplete = 0;
        const auto epoch = batches.epoch(1);
        REQUIRE(std::ssize(epoch) == batches.count());
        for (const Indices& batch : epoch) {
          REQUIRE(!batch.empty());
          REQUIRE(std::ssize(batch) <= size);
          if (std::ssize(batch) < size) ++incomplete;
          all.insert(all.end(), batch.begin(), batch.end());
        }
        REQUIRE(incomplete <= 1);
        REQUIRE(sorted(all) == counting(n));
      }
}

TEST_CASE("buckets: an epoch is a function of seed, stream and number") {
  const Rng rng(1);
  Rng moved = rng;
  moved.skip(5);
  const Indices lengths = some_lengths(300);
  const BucketedBatches batches(lengths, {.batch_size = 8}, rng);
  const auto third = batches.epoch(3);
  CHECK(BucketedBatches(lengths, {.batch_size = 8}, moved).epoch(3) == third);
  CHECK(batches.epoch(4) != third);
  CHECK(BucketedBatches(lengths, {.batch_size = 8}, Rng(2)).epoch(3) != third);
  // Other sequences meet in another epoch, too.
  const auto sets = [](const std::vector<Indices>& all) {
    std::set<Indices> result;
    for (const Indices& batch : all) result.insert(sorted(batch));
    return result;
  };
  CHECK(sets(batches.epoch(4)) != sets(third));
  CHECK_FALSE(std::ranges::is_sorted(third, {}, [&](const Indices& batch) {
    return lengths[static_cast<std::size_t>(batch[0])];
  }));
}

TEST_CASE("buckets: the larger the pools, the less padding") {
  const Indices lengths = some_lengths(2000);
  const auto cost = [&](Index pool) {
    return BucketedBatches(lengths, {.batch_size = 32, .pool = pool}, Rng(1)).cost(1);
  };
  const PaddingCost random = cost(1), some = cost(8), one = cost(1000);
  CHECK(random.steps == std::accumulate(lengths.begin(), lengths.end(), Index{0}));
  CHECK(one.steps == random.steps);
  CHECK(random.share() > 0.6);
  CHECK(some.share() < 0.3);
  CHECK(one.share() < 0.1);
  CHECK(one.share() ==
        doctest::Approx(1 - static_cast<double>(one.steps) / static_cast<double>(one.positions)));
  CHECK(PaddingCost{}.share() == 0);
}

TEST_CASE("buckets: words and labels are padded alike") {
  std::vector<Tokens> words, labels;
  for (int i = 0; i < 20; ++i) {
    words.emplace_back(static_cast<std::size_t>(i % 5), i);
    labels.emplace_back(static_cast<std::size_t>(i % 5), 100 + i);
  }
  const BucketedBatches batches(lengths_of(words), {.batch_size = 4, .pool = 2}, Rng(1));
  for (const Indices& batch : batches.epoch(1)) {
    const auto [x, lengths] = pad(pick(words, batch), 0);
    const auto y = pad(pick(labels, batch), -1);
    CHECK(lengths.to_vector() == y.lengths.to_vector());
    for (Index t = 0; t < x.size(0); ++t)
      for (Index b = 0; b < x.size(1); ++b)
        CHECK(y.x.at({t, b}) ==
              (static_cast<double>(t) < lengths.at({b}) ? x.at({t, b}) + 100 : -1));
  }
  CHECK(lengths_of(std::vector<Tensor>{zeros({2, 3}), zeros({0, 3})}) == Indices{2, 0});
  CHECK_THROWS_WITH_AS(pick(words, Indices{3, 20}), Contains("there is no item 20 among 20"),
                       ValueError);
}

TEST_CASE("buckets: bad options and lengths are refused") {
  const auto message = [](Indices lengths, const BucketOptions& options) {
    return message_without_line<ValueError>(
        [&] { BucketedBatches(std::move(lengths), options, Rng(1)); });
  };
  CHECK(message({}, {}) == "BucketedBatches: there are no sequences");
  CHECK(message({1, -2}, {}) == "BucketedBatches: the length of sequence 1 is -2, negative");
  CHECK(message({1}, {.batch_size = 0}) ==
        "BucketedBatches: batch_size is 0 and pool is 100; both must be positive");
  CHECK(message({1}, {.pool = -1}) ==
        "BucketedBatches: batch_size is 32 and pool is -1; both must be positive");
  constexpr Index most = std::numeric_limits<Index>::max();
  CHECK(BucketedBatches({1, 2}, {.batch_size = most, .pool = most}, Rng(1)).count() == 1);
  CHECK_THROWS_AS(BucketedBatches({1}, {}, Rng(1)).epoch(0), ValueError);
}
