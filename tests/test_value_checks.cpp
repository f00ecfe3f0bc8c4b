// For each check of values and memory, a wrong op that it detects.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include <reel/autograd/check/op_checks.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/threads.h>

#include "complaints.h"

using namespace reel;
using namespace reel::op;
using testing::complains;
using testing::lines;

namespace {

// The names of the checks that complain, in order.
std::string complainers(const OpSpec& op, const Reference& reference) {
  std::string names;
  for (const Check& check : all_checks)
    if (!check(op, reference).empty())
      names += (names.empty() ? "" : ", ") + std::string(check.name);
  return names;
}

template <class T, class F>
void map(Ctx<T> c, F f) {
  std::ranges::transform(c.in(0), c.out().begin(), f);
}

const auto twice_rule = rule([](Vjp& v) { v.add(0, [&] { return 2 * v.g(); }); }, keeps_nothing);
const Reference twice = elementwise_reference([](double x) { return 2 * x; });

// y = 2x, then modified by `spoil`.
template <class Spoil>
OpSpec spoiled(Spoil, const Samples<NoAttr>& samples = {normal({3, 4})}) {
  const Op<> op{{"wrong",
                 {"x"},
                 same_shape,
                 []<Real T>(Ctx<T> c) {
                   map(c, [](T x) { return 2 * x; });
                   Spoil{}(c.out());
                 },
                 twice_rule,
                 samples}};
  return op.spec();
}

}  // namespace

TEST_CASE("a right op with its reference passes every check") {
  const OpSpec op = spoiled([](auto) {});
  CHECK_MESSAGE(check_op(op, twice).empty(), lines(check_op(op, twice)));
}

TEST_CASE("softplus + 1 has wrong values, and no other fault") {
  const Op<> op{
      {"softplus_and_one",
       {"x"},
       same_shape,
       []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::log1p(std::exp(x)) + 1; }); },
       rule([](Vjp& v) { v.add(0, [&] { return v.g() * sigmoid(v.in()); }); }, keeps_inputs),
       {normal({3, 4})}}};
  const Reference softplus = elementwise_reference(
      [](double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); });
  CHECK(check_op(op.spec()).empty());
  CHECK(complainers(op.spec(), softplus) == "values, special values, shapes, sizes");
  CHECK(complains(check_values(op.spec(), softplus), "in the reference"));
}

TEST_CASE("errors only at special numbers are caught") {
  SUBCASE("a NaN that is lost") {
    const Op<> op{{"wrong_relu",
                   {"x"},
                   same_shape,
                   []<Real T>(Ctx<T> c) { map(c, [](T x) { return x > 0 ? x : T(0); }); },
                   rule(
                       [](Vjp& v) {
                         v.add(0,
                               [&] { return v.g() * (v.out().detach() > 0.0).to(v.g().dtype()); });
                       },
                       keeps_output),
                   {away_from_zero({3, 4})}}};
    CHECK(complainers(op.spec(), elementwise_reference([](double x) { return x < 0 ? 0 : x; })) ==
          "special values");
  }
  SUBCASE("a gradient of infinity over infinity") {
    const Op<> op{{"wrong_sigmoid",
                   {"x"},
                   same_shape,
                   []<Real T>(Ctx<T> c) { map(c, [](T x) { return 1 / (1 + std::exp(-x)); }); },
                   rule(
                       [](Vjp& v) {
                         v.add(0, [&] {
                           const Tensor e = exp(-v.in());
                           return v.g() * (e / square(1 + e));
                         });
                       },
                       keeps_inputs),
                   {normal({3, 4})}}};
    const Reference sigmoid =
        elementwise_reference([](double x) { return 1 / (1 + std::exp(-x)); });
    CHECK(complainers(op.spec(), sigmoid) == "special values");
    CHECK(complains(check_special_values(op.spec(), sigmoid), "the gradient of x at"));
  }
}

TEST_CASE("errors only at other sizes are caught") {
  SUBCASE("a remainder that no block holds") {
    const OpSpec op = spoiled([](auto y) { std::fill(y.end() - y.size() % 8, y.end(), 0); },
                              {normal({8}), normal({16})});
    CHECK(complainers(op, twice) == "shapes");
    CHECK(complains(check_shapes(op), "but differences say"));  // without a reference, too
  }
  SUBCASE("what stands behind the first block") {
    const OpSpec op = spoiled([](auto y) {
      if (y.size() > 8192) std::fill(y.begin() + 8192, y.end(), 0);
    });
    CHECK(complainers(op, twice) == "sizes");
    CHECK(complains(check_sizes(op), "but differences say"));
  }
  SUBCASE("the parts of several threads") {
    const OpSpec op = spoiled([](auto y) {
      if (y.size() > 8192)
        y[0] = static_cast<std::remove_reference_t<decltype(y[0])>>(y[0] + 1e-3 * threads() * y[0]);
    });
    CHECK(complainers(op, twice) == "sizes");
    CHECK(complains(check_sizes(op), "other values with another number of threads"));
  }
}

TEST_CASE("a dependence on memory contents is caught") {
  const OpSpec op = spoiled([](auto y) {
    const Scratch<double> never_written(4);
    if (std::isnan(never_written[3])) y[0] = 0;
  });
  CHECK(complains(check_memory(op), "values depend on what memory held before"));
}

TEST_CASE("a dependence on concurrent calls is caught") {
  const OpSpec op = spoiled([](auto y) {
    static std::atomic<int> callers = 0;
    ++callers;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (callers > 1) y[0] = 0;
    --callers;
  });
  CHECK(complains(check_concurrent_calls(op), "different results in concurrent calls"));
  CHECK(check_same_bits(op).empty());
  CHECK(check_values(op, twice).empty());
}

TEST_CASE("a reference has to be of the op") {
  const OpSpec op = spoiled([](auto) {});
  struct Attr {
    double value;
  };
  const Reference other =
      reference<Attr>([](const Arrays& in, const Attr&) -> Arrays { return in; });
  CHECK(
      complains(check_values(op, other), "its attributes have 0 bytes, those of the reference 8"));
  const Reference two = reference([](const Arrays& in) -> Arrays { return {in[0], in[0]}; });
  CHECK(complains(check_values(op, two), "1 outputs, but 2 in the reference"));
  const Reference flat = reference([](const Arrays&) -> Arrays { return {Array(Shape{12})}; });
  CHECK(complains(check_values(op, flat), "has shape [3, 4], but [12] in the reference"));
}
