#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/nn/init.h>

using namespace reel;
using doctest::Contains;

namespace {
constexpr double infinity = std::numeric_limits<double>::infinity();
const double quiet_nan = std::numeric_limits<double>::quiet_NaN();
}  // namespace

// The known answers are those that the Random123 library publishes.
TEST_CASE("Philox gives the known answers") {
  using Block = std::array<std::uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const std::uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) ==
        Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("the numbers are a function of seed, stream and position") {
  Rng rng(7);
  const auto first = rng.next();
  const auto second = rng.next();
  CHECK(first != second);
  CHECK(rng.state() == Rng::State{7, 0, 2});
  CHECK(Rng(Rng::State{7, 0, 1}).next() == second);
  Rng skipped(7);
  skipped.skip(1);
  CHECK(skipped.next() == second);
  CHECK(Rng(7, 1).next() != first);
  CHECK(Rng(8).next() != first);
}

TEST_CASE("a named stream depends on the name, not on what was drawn before") {
  Rng rng(7);
  const auto numbers = rng.stream("lstm.w_hh").next();
  rng.next();
  CHECK(rng.stream("lstm.w_hh").next() == numbers);
  CHECK(rng.stream("lstm.w_ih").next() != numbers);
}

TEST_CASE("uniform and normal numbers have their mean and variance") {
  Rng rng(1);
  const int n = 20000;
  double sum = 0, squares = 0, normal_sum = 0, normal_squares = 0;
  for (int i = 0; i < n; ++i) {
    const double u = rng.uniform(), z = rng.normal();
    REQUIRE((u >= 0 && u < 1));
    sum += u;
    squares += u * u;
    normal_sum += z;
    normal_squares += z * z;
  }
  CHECK(std::abs(sum / n - 0.5) < 0.01);
  CHECK(std::abs(squares / n - 1.0 / 3) < 0.01);
  CHECK(std::abs(normal_sum / n) < 0.03);
  CHECK(std::abs(normal_squares / n - 1) < 0.04);
}

TEST_CASE("integers are below their bound, and tensors draw as the scalar functions do") {
  Rng rng(3);
  std::array<int, 3> counts{};
  for (int i = 0; i < 3000; ++i) ++counts.at(static_cast<std::size_t>(rng.integer(3)));
  for (const int count : counts) CHECK(std::abs(count - 1000) < 120);
  CHECK(rng.integer(1) == 0);
  CHECK_THROWS_WITH_AS(
      rng.integer(0),
      doctest::Contains("Rng::integer: the number of choices must be positive, not 0 (" __FILE__
                        ":"),
      ValueError);

  Rng a(5), b(5);
  const Tensor x = a.normal({2, 2}, 10, 2, f64);
  for (const double value : x.to_vector()) CHECK(value == 10 + 2 * b.normal());
  CHECK(a.state() == b.state());
  CHECK(a.uniform({3}, -1, 1).dtype() == f32);
}

TEST_CASE("uniform numbers stay below their bound") {
  CHECK(Rng(Rng::State{1, 0, 27392119}).uniform({1}, 0, 1).item() < 1);
  for (const auto& [low, high] :
       {std::pair{0.0, 1.0}, {-1.0, 0.0}, {1.0, 1 + 1e-6}, {0.1, 0.3}, {1e8, 1e8 + 16}})
    for (const DType dtype : {f32, f64}) {
      const Tensor x = Rng(Rng::State{1, 0, 27392119 - 5000}).uniform({10000}, low, high, dtype);
      CHECK(max(x).item() < high);
      CHECK(min(x).item() >= low);
    }
  CHECK(Rng(1).uniform({3}, 2, 2).to_vector() == std::vector<double>{2, 2, 2});
  CHECK_THROWS_WITH_AS(Rng(1).uniform({3}, 2, 1), Contains("Rng::uniform: low is 2 and high is 1"),
                       ValueError);
  CHECK_THROWS_AS(Rng(1).uniform({3}, 0, infinity), ValueError);
  CHECK_THROWS_AS(Rng(1).uniform({3}, quiet_nan, 1), ValueError);
}

TEST_CASE("draws whose settings are out of range") {
  Rng rng(1);
  CHECK_THROWS_WITH_AS(rng.uniform({2}, 0, 1e300), Contains("must be finite in f32"), ValueError);
  CHECK_THROWS_AS(rng.uniform({2}, -1e300, 0), ValueError);
  CHECK(rng.uniform({2}, 0, 1e300, f64).dtype() == f64);
  CHECK_THROWS_WITH_AS(rng.normal({2}, 0, -1),
                       Contains("Rng::normal: deviation is -1, but has to be a finite number >= 0 "
                                "in f32 (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_AS(rng.normal({2}, 0, quiet_nan), ValueError);
  CHECK_THROWS_AS(rng.normal({2}, 0, 1e39), ValueError);
  CHECK_THROWS_WITH_AS(rng.normal({2}, quiet_nan, 1), Contains("Rng::normal: mean is nan"),
                       ValueError);
  CHECK(rng.normal({2}, 3, 0).to_vector() == std::vector<double>{3, 3});
  CHECK_THROWS_WITH_AS(rng.uniform({2}, 0, 1, i32),
                       Contains("Rng::uniform: random numbers are f32 or f64, not i32 (" __FILE__),
                       DTypeError);
  CHECK_THROWS_WITH_AS(rng.normal({2}, 0, 1, i32), Contains("Rng::normal: random numbers"),
                       DTypeError);
  CHECK_THROWS_WITH_AS(nn::init::constant(quiet_nan),
                       Contains("init::constant: value is nan, but has to be finite (" __FILE__),
                       ValueError);
  CHECK_THROWS_WITH_AS(nn::init::normal(-1),
                       Contains("init::normal: deviation is -1, but has to be a finite number >= 0 "
                                "(" __FILE__),
                       ValueError);
}

TEST_CASE("a stream of a stream is known by its path") {
  const Rng rng(7);
  const auto numbers = [](Rng rng) { return rng.next(); };
  const Rng a = rng.stream("a"), b = rng.stream("b");
  CHECK(numbers(a.stream("a")) != numbers(rng));
  CHECK(numbers(a.stream("b")) != numbers(b.stream("a")));
  CHECK(numbers(a.stream("b")) != numbers(rng.stream("ab")));
  CHECK(numbers(rng.stream("").stream("")) != numbers(rng));
  CHECK(numbers(rng.stream("").stream("")) != numbers(rng.stream("")));
  CHECK(rng.stream("w").state().stream == 0xaf63ea4c86020456);  // FNV-1a of "w"
}

TEST_CASE("the draws of a tensor are those of the scalar functions") {
  // A tensor's draws equal those of the scalar functions, whatever its size relative to a block.
  for (const Index n : {1, 15, 16, 17, 100}) {
    Rng a(5, 3), b(5, 3);
    const Tensor z = a.normal({n}, 0, 1, f64), u = a.uniform({n}, 0, 1, f64);
    for (const double x : z.to_vector()) CHECK(x == b.normal());
    for (const double x : u.to_vector()) CHECK(x == b.uniform());
    CHECK(a.state() == b.state());
  }
  // Beyond 32-bit positions.
  Rng a(Rng::State{1, 2, 0xfffffff8}), b(Rng::State{1, 2, 0xfffffff8});
  for (const double x : a.normal({20}, 0, 1, f64).to_vector()) CHECK(x == b.normal());
}

TEST_CASE("dropout takes the words of blocks in order, whatever its size relative to a vector") {
  for (const Index n : {1, 7, 64, 65, 511, 513, 1500})
    for (const std::uint64_t position : {0ULL, 0xfffffff8ULL, 0xffffffffffffff00ULL}) {
      Rng rng(Rng::State{1, 2, position}), by_hand = rng;
      const Tensor y = dropout(ones({n}), 0.25, rng);
      std::array<std::uint32_t, 4> words{};
      bool right = true;
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        if (i % 4 == 0) words = by_hand.next();
        right &= (y.begin<float>()[i] == 0) == (words[i % 4] < 0x40000000);
      }
      CHECK(right);
      CHECK(rng.state() == by_hand.state());
    }
}

TEST_CASE("normal numbers in f32 are those in f64, to the last places") {
  const Index n = 200000;
  Rng single(9, 1), exact(9, 1);
  const Tensor x = single.normal({n}), y = exact.normal({n}, 0, 1, f64);
  double worst = 0;
  for (Index i = 0; i < n; ++i) {
    const double wanted = y.begin<double>()[i];
    worst = std::max(worst, std::abs(x.begin<float>()[i] - wanted) / std::abs(wanted));
  }
  CHECK(worst < 0x1p-21);
  CHECK(worst > 0);  // else there is no need for two formulas
  CHECK(single.state() == exact.state());
  const Tensor moved = Rng(9, 1).normal({n}, -2, 3).to(f64);
  CHECK(max(abs(moved - (y * 3 - 2))).item() < 2e-6);
}
