#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <reel/autograd/kernels/interpolate.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/elementwise.h>
#include <reel/autograd/tape.h>

namespace reel {
using namespace op;
namespace {

using detail::binary;
using detail::map2;
using detail::times_slope;

REEL_EARLY const Samples<NoAttr> broadcasting_samples{
    with_inputs(normal({3, 4}), normal({3, 4})),
    with_inputs(normal({3, 4}), normal({4})),
    with_inputs(normal({2, 1, 3}), normal({5, 1})),
    with_inputs(normal({}), normal({2, 3})),
    with_inputs(normal({2, 3}), normal({})),
    with_inputs(normal({2, 1, 3, 1}), normal({1, 2, 1, 17})),
    with_inputs(normal({0, 3}), normal({3})),
};

REEL_EARLY const Op<> add_op{{
    .name = "add",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward =
        []<class T>(Ctx<T> c) {
          map2(c, [](T a, T b) { return static_cast<T>(Modular<T>(a) + Modular<T>(b)); });
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g(); });
          v.add(1, [&] { return v.g(); });
        },
        keeps_nothing),
    .samples = broadcasting_samples,
}};

REEL_EARLY const Op<> sub_op{{
    .name = "sub",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward =
        []<class T>(Ctx<T> c) {
          map2(c, [](T a, T b) { return static_cast<T>(Modular<T>(a) - Modular<T>(b)); });
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g(); });
          v.add(1, [&] { return -v.g(); });
        },
        keeps_nothing),
    .samples = broadcasting_samples,
}};

REEL_EARLY const Op<> mul_op{{
    .name = "mul",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward =
        []<class T>(Ctx<T> c) {
          map2(c, [](T a, T b) { return static_cast<T>(Modular<T>(a) * Modular<T>(b)); });
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g() * v.in(1); });
          v.add(1, [&] { return v.g() * v.in(0); });
        },
        keeps_inputs),
    .samples = broadcasting_samples,
}};

REEL_EARLY const Op<> div_op{{
    .name = "div",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<Real T>(Ctx<T> c) { map2(c, [](T a, T b) { return a / b; }); },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g() / v.in(1); });
          // g a and b² could overflow or underflow even if the result does not.
          v.add(1, [&] { return -(v.g() * (v.in(0) / v.in(1)) / v.in(1)); });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3, 4}), away_from_zero({3, 4})),
                with_inputs(normal({2, 3}), positive({3})),
                with_inputs(normal({3, 4}), away_from_zero({4})),
                with_inputs(normal({}), away_from_zero({2, 3})),
                with_inputs(normal({2, 1, 3}), away_from_zero({5, 1})),
                with_inputs(normal({0}), away_from_zero({1}))},
}};

REEL_EARLY const Op<> times_slope_op{{
    .name = "times_slope",
    .arguments = {"g", "slope"},
    .shape = broadcast_shape,
    .forward =
        []<Real T>(Ctx<T> c) {
          map2(c, [](T g, T slope) { return slope == 0 ? T(0) : g * slope; });
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return times_slope(v.g(), v.in(1)); });
          v.add(1, [&] { return v.g() * v.in(0); });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3, 4}), normal({3, 4})),
                with_inputs(normal({3, 1}), normal({3, 4})),
                with_inputs(normal({}), normal({2, 3})), with_inputs(normal({17}), values({-2})),
                with_inputs(normal({0}), normal({1}))},
}};

REEL_EARLY const Op<> pow_op{{
    .name = "pow",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<Real T>(Ctx<T> c) { map2(c, [](T a, T b) { return kernels::vpow(a, b); }); },
    .gradient = rule(
        [](Vjp& v) {
          const Tensor a = v.in(0).detach(), b = v.in(1).detach();
          const Tensor zero = scalar(0, a.dtype()), one = scalar(1, a.dtype());
          v.add(0, [&] {
            // b aᵇ⁻¹, computed as b aᵇ / a for b <= 0, where it overflows only if the result does,
            // and is 0 at b = 0, also where a is 0 or NaN.
            const Tensor flat = logical_and(equal(b, zero), abs(a) > 0);
            const Tensor divided = logical_or(b < 0, flat);
            const Tensor lowered = where(b <= 0, v.in(1), v.in(1) - 1);
            return v.g() * pow(v.in(0), lowered) * v.in(1) / where(divided, v.in(0), one);
          });
          v.add(1, [&] {
            // 0 where aᵇ = 0 and the logarithm is infinite, and at 0⁰.
            const Tensor infinity = scalar(std::numeric_limits<double>::infinity(), a.dtype());
            const Tensor flat = where(b < 0, equal(a, infinity), equal(a, zero));
            return v.g() * log(where(flat, one, v.in(0))) * v.out();
          });
        },
        keeps_all),
    .samples =
        {with_inputs(positive({3, 4}), positive({3, 4})),
         with_inputs(positive({3, 4}), normal({4})), with_inputs(positive({}), normal({2, 3})),
         with_inputs(positive({2, 1, 3}), normal({5, 1})), with_inputs(positive({17}), normal({1})),
         with_inputs(values({0.5, 2, 40}), values({-3})),
         with_inputs(values({0.5}), values({-8, 0, 8})), with_inputs(positive({0}), normal({1}))},
}};

// g (b - a), also where only the difference overflows.
Tensor slope_of_weight(const Tensor& g, const Tensor& a, const Tensor& b) {
  if (!Tape::current()) {
    Tensor y(g.shape(), g.dtype());
    dispatch_real(g.dtype(), [&]<class T>() {
      kernels::broadcast_ternary(
          g.shape(), static_cast<T*>(y.buffer().data()), g.begin<T>(), g.shape(), a.begin<T>(),
          a.shape(), b.begin<T>(), b.shape(), [](T slope, T from, T to) {
            const T difference = to - from;
            const bool finite = std::abs(difference) <= std::numeric_limits<T>::max();
            return finite ? slope * difference : (2 * slope) * (to / 2 - from / 2);
          });
    });
    return y;
  }
  const Tensor difference = b - a;
  const bool finite = dispatch_real(difference.dtype(), [&]<class T>() {
    return std::ranges::all_of(difference.values<T>(), [](T d) { return std::isfinite(d); });
  });
  return finite ? g * difference : (2 * g) * (b / 2 - a / 2);
}

REEL_EARLY const Op<> lerp_op{{
    .name = "lerp",
    .arguments = {"a", "b", "w"},
    .shape = broadcast_shape,
    .forward =
        []<Real T>(Ctx<T> c) {
          kernels::broadcast_ternary(c.out_shape(), c.out().data(), c.in(0).data(), c.shape(0),
                                     c.in(1).data(), c.shape(1), c.in(2).data(), c.shape(2),
                                     [](T a, T b, T w) { return kernels::interpolate(a, b, w); });
        },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g() * (1 - v.in(2)); });
          v.add(1, [&] { return v.g() * v.in(2); });
          v.add(2, [&] { return slope_of_weight(v.g(), v.in(0), v.in(1)); });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3, 4}), normal({3, 4}), normal({3, 4})),
                with_inputs(normal({3, 4}), normal({4}), normal({})),
                with_inputs(normal({2, 1, 3}), normal({5, 1}), normal({1})),
                with_inputs(normal({}), normal({17}), normal({})),
                with_inputs(normal({0}), normal({1}), normal({}))},
}};

}  // namespace

Tensor detail::times_slope(const Tensor& g, const Tensor& slope) {
  return times_slope_op({&g, &slope}, {});
}

Tensor add(const Operand& a, const Operand& b, Site site) { return binary(add_op, a, b, site); }
Tensor sub(const Operand& a, const Operand& b, Site site) { return binary(sub_op, a, b, site); }
Tensor mul(const Operand& a, const Operand& b, Site site) { return binary(mul_op, a, b, site); }
Tensor div(const Operand& a, const Operand& b, Site site) { return binary(div_op, a, b, site); }
Tensor pow(const Operand& a, const Operand& b, Site site) { return binary(pow_op, a, b, site); }
Tensor lerp(const Operand& a, const Operand& b, const Operand& w, Site site) {
  Tensor number_a, number_b, number_w;
  const Tensor& from = a.resolve(b, number_a);
  return lerp_op({&from, &b.resolve(a, number_b), &w.resolve(from, number_w)}, site);
}

const Tensor& Operand::resolve(const Operand& other, Tensor& number) const {
  if (tensor_) return *tensor_;
  const DType dtype = other.tensor_ ? other.tensor_->dtype() : f32;
  if (dtype == i32 && number_ != std::nearbyint(number_))
    throw DTypeError(fmt::format("the number {} cannot be an operand of an i32 tensor; convert the "
                                 "tensor with to()",
                                 number_),
                     site_);
  return number = scalar(number_, dtype);
}

namespace {

using Function = Tensor (*)(const Operand&, const Operand&, Site);

// Calls a function on operands, with the site where they were written.
Tensor operate(Function f, const Operand& a, const Operand& b) { return f(a, b, a.site()); }

// Whether a + b has more elements than a.
bool stretches(const Shape& a, const Shape& b) {
  bool longer = b.rank() > a.rank();
  for (int axis = 1; axis <= std::min(a.rank(), b.rank()); ++axis)
    longer |= a[a.rank() - axis] == 1 && b[b.rank() - axis] != 1;
  return longer;
}

Tensor& assign(const char* name, Function f, Tensor& a, const Operand& b) {
  Tensor number;
  const Tensor& other = b.resolve(a, number);
  if (a.defined() && stretches(a.shape(), other.shape()))
    throw ShapeError(fmt::format("{}: a would take another shape; a is {} {}, b is {} {}", name,
                                 name_of(a.dtype()), a.shape().str(), name_of(other.dtype()),
                                 other.shape().str()),
                     b.site());
  return a = f(a, other, b.site());
}

}  // namespace

Tensor operator+(const Operand& a, const Operand& b) { return operate(add, a, b); }
Tensor operator-(const Operand& a, const Operand& b) { return operate(sub, a, b); }
Tensor operator*(const Operand& a, const Operand& b) { return operate(mul, a, b); }
Tensor operator/(const Operand& a, const Operand& b) { return operate(div, a, b); }
Tensor operator<(const Operand& a, const Operand& b) { return operate(less, a, b); }
Tensor operator<=(const Operand& a, const Operand& b) { return operate(less_equal, a, b); }
Tensor operator>(const Operand& a, const Operand& b) { return operate(greater, a, b); }
Tensor operator>=(const Operand& a, const Operand& b) { return operate(greater_equal, a, b); }
Tensor operator-(const Operand& a) {
  Tensor number;
  return neg(a.resolve(a, number), a.site());
}

Tensor& operator+=(Tensor& a, const Operand& b) { return assign("+=", add, a, b); }
Tensor& operator-=(Tensor& a, const Operand& b) { return assign("-=", sub, a, b); }
Tensor& operator*=(Tensor& a, const Operand& b) { return assign("*=", mul, a, b); }
Tensor& operator/=(Tensor& a, const Operand& b) { return assign("/=", div, a, b); }

}  // namespace reel

namespace reel::op::linked {
void binary() {}
}  // namespace reel::op::linked
