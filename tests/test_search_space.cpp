// What a search of char_lm draws, and how long it trains its trials.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include <reel/autograd/error.h>

#include "../examples/char_lm/search_space.h"

using namespace reel;
using namespace reel::char_lm;

namespace {

double number_at(const char* range, double u) { return std::stod(Range(range).at(u)); }

SearchSpace space_of(const std::vector<const char*>& ranges) {
  SearchSpace space{.fixed = {}, .given = {}, .ranges = {}};
  for (const char* range : ranges) space.ranges.emplace_back(range);
  return space;
}

constexpr double last = 1 - 0x1p-53;

}  // namespace

TEST_CASE("search: positive numbers are log-uniform, others uniform, with three digits") {
  CHECK(Range("lr=1e-4..1e-2").at(0.5) == "0.001");
  CHECK(Range("lr=1e-4..1e-2").at(0.25) == "0.000316");
  CHECK(Range("dropout=0..0.5").at(0.25) == "0.125");
  CHECK(Range("lr=2..2.5").distribution() == "log-uniform");
  CHECK(Range("clip=0..10").distribution() == "uniform");
  for (const char* range : {"lr=1.23456..9.87654", "ema=0.99901..0.99919"}) {
    CAPTURE(range);
    const double low = number_at(range, 0), high = number_at(range, last);
    const std::string values = Range(range).values();
    CHECK(low == std::stod(values));
    CHECK(high == std::stod(values.substr(values.find("..") + 2)));
    CHECK(number_at(range, 0.5) > low);
    CHECK(number_at(range, 0.5) < high);
  }
}

TEST_CASE("search: whole numbers include both ends, in proportion to the logarithm") {
  std::map<std::string, int> counts;
  for (int i = 0; i < 1000; ++i) ++counts[Range("layers=1..3").at(i / 1000.0)];
  CHECK(counts == std::map<std::string, int>{{"1", 500}, {"2", 293}, {"3", 207}});
  CHECK(Range("hidden=64..512").at(last) == "512");
  CHECK(Range("warmup=0..1").at(0.49) == "0");
  CHECK(Range("warmup=0..1").at(0.51) == "1");
  CHECK(Range("warmup=0..1").distribution() == "uniform");
}

TEST_CASE("search: a choice has equal shares") {
  std::map<std::string, int> counts;
  for (int i = 0; i < 999; ++i) ++counts[Range("optimizer=adam|sgd,lion").at(i / 999.0)];
  CHECK(counts == std::map<std::string, int>{{"adam", 333}, {"lion", 333}, {"sgd", 333}});
  CHECK(Range("hidden=64,128").at(last) == "128");
  CHECK(Range("hidden=64,128").distribution() == "a choice");
}

TEST_CASE("search: a trial depends on the seed, its number and its own ranges alone") {
  const auto both = draw(space_of({"lr=1e-4..1e-1", "model=gru,lstm"}), 20);
  const auto swapped = draw(space_of({"model=gru,lstm", "lr=1e-4..1e-1"}), 5);
  const auto one = draw(space_of({"lr=1e-4..1e-1"}), 5);
  std::map<std::string, int> models;
  for (const Drawn& trial : both) ++models[trial.settings.model];
  CHECK(models["gru"] > 4);
  CHECK(models["lstm"] > 4);
  for (std::size_t i = 0; i < one.size(); ++i) {
    CAPTURE(i);
    CHECK(both[i].settings.lr == one[i].settings.lr);
    CHECK(texts_of(both[i].settings) == texts_of(swapped[i].settings));
  }
  SearchSpace other = space_of({"lr=1e-4..1e-1"});
  other.fixed.seed = 5;
  CHECK(draw(other, 1)[0].settings.lr != one[0].settings.lr);
}

TEST_CASE("search: trials differ, as long as there are other values") {
  const auto all = draw(space_of({"model=rnn,gru,lstm", "layers=1,2"}), 6);
  std::map<std::string, int> seen;
  for (const Drawn& trial : all)
    CHECK(++seen[trial.values[0].second + trial.values[1].second] == 1);
  CHECK_THROWS_AS(draw(space_of({"model=rnn,gru,lstm", "layers=1,2"}), 7), ValueError);
}

TEST_CASE("search: settings that have the value of another one follow its values") {
  for (const Drawn& trial : draw(space_of({"seq-len=5..50"}), 5)) {
    CHECK(trial.settings.tbptt_update == trial.settings.seq_len);
    CHECK(trial.settings.tbptt_length == trial.settings.seq_len);
  }
  SearchSpace space = space_of({"seq-len=5..50"});
  complete(space.fixed, {});  // as it is stored
  for (const Drawn& trial : draw(space, 5))
    CHECK(trial.settings.tbptt_length == trial.settings.seq_len);
}

TEST_CASE("search: the better half goes on, to twice as many epochs") {
  CHECK(rungs_of(16, 8) == std::vector{1, 2, 4, 8});
  CHECK(rungs_of(5, 10) == std::vector{1, 2, 5, 10});
  CHECK(rungs_of(4, 10) == std::vector{2, 5, 10});
  CHECK(rungs_of(1, 10) == std::vector{10});
  CHECK(rungs_of(999, 1) == std::vector{1});
  CHECK(rungs_of(999, 3) == std::vector{1, 3});
}
