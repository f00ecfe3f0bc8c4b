#include <functional>

#include <reel/autograd/ops.h>
#include <reel/autograd/ops/elementwise.h>

namespace reel {
using namespace op;
namespace {

using detail::binary;
using detail::map;
using detail::map2;

// --- comparisons ---

template <class T, class F>
void compare(Ctx<T> c, F f) {
  kernels::broadcast_binary(c.out_shape(), c.integer_out().data(), c.in(0).data(), c.shape(0),
                            c.in(1).data(), c.shape(1),
                            [f](T a, T b) { return static_cast<std::int32_t>(f(a, b)); });
}

constexpr auto step = none("a comparison is a step");
constexpr auto integer_broadcast = [](const Arguments& in) { return integer(broadcast_shape(in)); };

// Pairs that are nowhere close to equal.
REEL_EARLY const Samples<NoAttr> unequal_samples{
    with_inputs(distinct({3, 4}), values({0.05})),
    with_inputs(values({1, 2, 3}), values({3, 1, 2})),
    with_inputs(values({1, 2, 3}), values({0.5})),
    with_inputs(positive({2, 1, 17}), uniform({3, 1}, -2, -1)),
    with_inputs(normal({0, 3}), normal({3})),
};

REEL_EARLY const Op<> less_op{{
    .name = "less",
    .arguments = {"a", "b"},
    .shape = integer_broadcast,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::less<T>{}); },
    .gradient = step,
    .samples = unequal_samples,
}};

REEL_EARLY const Op<> less_equal_op{{
    .name = "less_equal",
    .arguments = {"a", "b"},
    .shape = integer_broadcast,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::less_equal<T>{}); },
    .gradient = step,
    .samples = unequal_samples,
}};

REEL_EARLY const Op<> greater_op{{
    .name = "greater",
    .arguments = {"a", "b"},
    .shape = integer_broadcast,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::greater<T>{}); },
    .gradient = step,
    .samples = unequal_samples,
}};

REEL_EARLY const Op<> greater_equal_op{{
    .name = "greater_equal",
    .arguments = {"a", "b"},
    .shape = integer_broadcast,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::greater_equal<T>{}); },
    .gradient = step,
    .samples = unequal_samples,
}};

REEL_EARLY const Op<> equal_op{{
    .name = "equal",
    .arguments = {"a", "b"},
    .shape = integer_broadcast,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::equal_to<T>{}); },
    .gradient = step,
    .samples = unequal_samples,
}};

REEL_EARLY const Op<> not_equal_op{{
    .name = "not_equal",
    .arguments = {"a", "b"},
    .shape = integer_broadcast,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::not_equal_to<T>{}); },
    .gradient = step,
    .samples = unequal_samples,
}};

// --- logic ---

constexpr auto truth = none("truth values have no slope");

REEL_EARLY const Samples<NoAttr> truth_samples{
    with_inputs(indices({3, 4}, 2), indices({3, 4}, 3)),
    with_inputs(indices({2, 1, 3}, 2), indices({5, 1}, 2)),
    with_inputs(indices({}, 2), indices({17}, 2)),
    with_inputs(indices({0, 3}, 2), indices({3}, 2)),
};

REEL_EARLY const Op<> logical_and_op{{
    .name = "logical_and",
    .arguments = {integer("a"), integer("b")},
    .shape = broadcast_shape,
    .forward = [](Ctx<std::int32_t> c) { compare(c, std::logical_and<std::int32_t>{}); },
    .gradient = truth,
    .samples = truth_samples,
}};

REEL_EARLY const Op<> logical_or_op{{
    .name = "logical_or",
    .arguments = {integer("a"), integer("b")},
    .shape = broadcast_shape,
    .forward = [](Ctx<std::int32_t> c) { compare(c, std::logical_or<std::int32_t>{}); },
    .gradient = truth,
    .samples = truth_samples,
}};

REEL_EARLY const Op<> logical_xor_op{{
    .name = "logical_xor",
    .arguments = {integer("a"), integer("b")},
    .shape = broadcast_shape,
    .forward =
        [](Ctx<std::int32_t> c) {
          compare(c, [](std::int32_t a, std::int32_t b) { return (a != 0) != (b != 0); });
        },
    .gradient = truth,
    .samples = truth_samples,
}};

REEL_EARLY const Op<> logical_not_op{{
    .name = "logical_not",
    .arguments = {integer("x")},
    .shape = same_shape,
    .forward =
        [](Ctx<std::int32_t> c) {
          map(c, [](std::int32_t x) { return static_cast<std::int32_t>(x == 0); });
        },
    .gradient = truth,
    .samples = {indices({3, 4}, 3), indices({}, 2), indices({17}, 2), indices({0}, 2)},
}};

// --- choices ---

// The gradient of maximum and minimum goes to the selected operand; ties split it equally. It is
// selected, not multiplied by a share: 0 times an infinity would be NaN.
void choose_gradient(Vjp& v, Tensor (*first_wins)(const Operand&, const Operand&, Site)) {
  const Tensor a = v.in(0).detach(), b = v.in(1).detach(), zero = scalar(0, a.dtype());
  const Tensor first = first_wins(a, b, {}), tie = equal(a, b), half = v.g() * 0.5;
  v.add(0, [&] { return where(first, v.g(), where(tie, half, zero)); });
  v.add(1, [&] { return where(first, zero, where(tie, half, v.g())); });
}

REEL_EARLY const Op<> maximum_op{{
    .name = "maximum",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { map2(c, [](T a, T b) { return a > b || a != a ? a : b; }); },
    .gradient = rule([](Vjp& v) { choose_gradient(v, greater); }, keeps_inputs),
    .samples = unequal_samples,
}};

REEL_EARLY const Op<> minimum_op{{
    .name = "minimum",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { map2(c, [](T a, T b) { return a < b || a != a ? a : b; }); },
    .gradient = rule([](Vjp& v) { choose_gradient(v, less); }, keeps_inputs),
    .samples = unequal_samples,
}};

REEL_EARLY const Op<> where_op{{
    .name = "where",
    .arguments = {integer("condition"), "a", "b"},
    .shape = broadcast_shape,
    .forward =
        []<class T>(Ctx<T> c) {
          kernels::broadcast_ternary(c.out_shape(), c.out().data(), c.indices(0).data(), c.shape(0),
                                     c.in(1).data(), c.shape(1), c.in(2).data(), c.shape(2),
                                     [](std::int32_t yes, T a, T b) { return yes ? a : b; });
        },
    .gradient = rule(
        [](Vjp& v) {
          const auto zero = [&] { return scalar(0, v.g().dtype()); };
          v.add(1, [&] { return where(v.in(0), v.g(), zero()); });
          v.add(2, [&] { return where(v.in(0), zero(), v.g()); });
        },
        Keeps::input(0)),
    .samples = {with_inputs(indices({3, 4}, 2), normal({3, 4}), normal({3, 4})),
                with_inputs(indices({3, 1}, 2), normal({4}), normal({})),
                with_inputs(indices({}, 2), normal({2, 3}), normal({2, 3})),
                with_inputs(indices({0}, 2), normal({0}), normal({1}))},
}};

}  // namespace

Tensor less(const Operand& a, const Operand& b, Site site) { return binary(less_op, a, b, site); }
Tensor less_equal(const Operand& a, const Operand& b, Site site) {
  return binary(less_equal_op, a, b, site);
}
Tensor greater(const Operand& a, const Operand& b, Site site) {
  return binary(greater_op, a, b, site);
}
Tensor greater_equal(const Operand& a, const Operand& b, Site site) {
  return binary(greater_equal_op, a, b, site);
}
Tensor equal(const Operand& a, const Operand& b, Site site) { return binary(equal_op, a, b, site); }
Tensor not_equal(const Operand& a, const Operand& b, Site site) {
  return binary(not_equal_op, a, b, site);
}
Tensor logical_and(const Operand& a, const Operand& b, Site site) {
  return binary(logical_and_op, a, b, site);
}
Tensor logical_or(const Operand& a, const Operand& b, Site site) {
  return binary(logical_or_op, a, b, site);
}
Tensor logical_xor(const Operand& a, const Operand& b, Site site) {
  return binary(logical_xor_op, a, b, site);
}
Tensor logical_not(const Tensor& x, Site site) { return logical_not_op({&x}, site); }
Tensor maximum(const Operand& a, const Operand& b, Site site) {
  return binary(maximum_op, a, b, site);
}
Tensor minimum(const Operand& a, const Operand& b, Site site) {
  return binary(minimum_op, a, b, site);
}
Tensor where(const Tensor& condition, const Operand& a, const Operand& b, Site site) {
  Tensor number_a, number_b;
  return where_op({&condition, &a.resolve(b, number_a), &b.resolve(a, number_b)}, site);
}

}  // namespace reel

namespace reel::op::linked {
void compare() {}
}  // namespace reel::op::linked
