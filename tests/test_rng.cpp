#include <doctest/doctest.h>

#include <cmath>

#include <reel/autograd/error.h>
#include <reel/autograd/rng.h>

using namespace reel;

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
