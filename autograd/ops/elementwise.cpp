#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/op.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

// Applies f to each element.
template <class T, class F>
void map(Ctx<T> c, F f) {
  const T* x = c.in(0).data();
  T* y = c.out().data();
  const Index n = static_cast<Index>(c.out().size());
  for (Index i = 0; i < n; ++i) y[i] = f(x[i]);
}

template <class T, class F>
void map2(Ctx<T> c, F f) {
  kernels::broadcast_binary(c.out_shape(), c.out().data(), c.in(0).data(), c.shape(0),
                            c.in(1).data(), c.shape(1), f);
}

template <class T, class F>
void compare(Ctx<T> c, F f) {
  kernels::broadcast_binary(c.out_shape(), c.integer_out().data(), c.in(0).data(), c.shape(0),
                            c.in(1).data(), c.shape(1),
                            [f](T a, T b) { return static_cast<std::int32_t>(f(a, b)); });
}

const Samples<NoAttr> broadcasting_samples{
    with_inputs(normal({3, 4}), normal({3, 4})),
    with_inputs(normal({3, 4}), normal({4})),
    with_inputs(normal({2, 1, 3}), normal({5, 1})),
    with_inputs(normal({}), normal({2, 3})),
    with_inputs(normal({2, 3}), normal({})),
    with_inputs(normal({2, 1, 3, 1}), normal({1, 2, 1, 17})),
    with_inputs(normal({0, 3}), normal({3})),
};

// Pairs that are nowhere close to equal.
const Samples<NoAttr> unequal_samples{
    with_inputs(distinct({3, 4}), values({0.05})),
    with_inputs(values({1, 2, 3}), values({3, 1, 2})),
    with_inputs(values({1, 2, 3}), values({0.5})),
};

// --- two operands ---

const Op<> add_op{{
    .name = "add",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { map2(c, [](T a, T b) { return a + b; }); },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g(); });
          v.add(1, [&] { return v.g(); });
        },
        keeps_nothing),
    .samples = broadcasting_samples,
}};

const Op<> sub_op{{
    .name = "sub",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { map2(c, [](T a, T b) { return a - b; }); },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g(); });
          v.add(1, [&] { return -v.g(); });
        },
        keeps_nothing),
    .samples = broadcasting_samples,
}};

const Op<> mul_op{{
    .name = "mul",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { map2(c, [](T a, T b) { return a * b; }); },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g() * v.in(1); });
          v.add(1, [&] { return v.g() * v.in(0); });
        },
        keeps_inputs),
    .samples = broadcasting_samples,
}};

const Op<> div_op{{
    .name = "div",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<Real T>(Ctx<T> c) { map2(c, [](T a, T b) { return a / b; }); },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] { return v.g() / v.in(1); });
          v.add(1, [&] { return -(v.g() * v.in(0) / square(v.in(1))); });
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3, 4}), away_from_zero({3, 4})),
                with_inputs(normal({3, 4}), away_from_zero({4})),
                with_inputs(normal({}), away_from_zero({2, 3})),
                with_inputs(normal({2, 1, 3}), away_from_zero({5, 1})),
                with_inputs(normal({0}), away_from_zero({1}))},
}};

// The gradient of maximum and minimum: to the operand that was taken, halves where they are equal.
void choose_gradient(Vjp& v, Tensor (*first_wins)(const Tensor&, const Tensor&, Site)) {
  const Tensor a = v.in(0).detach(), b = v.in(1).detach(), zero = scalar(0, a.dtype());
  const Tensor tie = where(equal(a, b), scalar(0.5, a.dtype()), zero);
  const Tensor share = where(first_wins(a, b, {}), scalar(1, a.dtype()), tie);
  v.add(0, [&] { return v.g() * share; });
  v.add(1, [&] { return v.g() * (1 - share); });
}

const Op<> maximum_op{{
    .name = "maximum",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { map2(c, [](T a, T b) { return a > b || a != a ? a : b; }); },
    .gradient = rule([](Vjp& v) { choose_gradient(v, greater); }, keeps_inputs),
    .samples = unequal_samples,
}};

const Op<> minimum_op{{
    .name = "minimum",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { map2(c, [](T a, T b) { return a < b || a != a ? a : b; }); },
    .gradient = rule([](Vjp& v) { choose_gradient(v, less); }, keeps_inputs),
    .samples = unequal_samples,
}};

const Op<> less_op{{
    .name = "less",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::less<T>{}); },
    .gradient = none("a comparison is a step"),
    .samples = unequal_samples,
    .integer_output = true,
}};

const Op<> greater_op{{
    .name = "greater",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::greater<T>{}); },
    .gradient = none("a comparison is a step"),
    .samples = unequal_samples,
    .integer_output = true,
}};

const Op<> equal_op{{
    .name = "equal",
    .arguments = {"a", "b"},
    .shape = broadcast_shape,
    .forward = []<class T>(Ctx<T> c) { compare(c, std::equal_to<T>{}); },
    .gradient = none("a comparison is a step"),
    .samples = unequal_samples,
    .integer_output = true,
}};

const Op<> where_op{{
    .name = "where",
    .arguments = {integer("condition"), "a", "b"},
    .shape = broadcast_shape,
    .forward =
        []<class T>(Ctx<T> c) {
          const kernels::BroadcastPlan<3> plan(c.out_shape(),
                                               {&c.shape(0), &c.shape(1), &c.shape(2)});
          const std::int32_t* condition = c.indices(0).data();
          const T *a = c.in(1).data(), *b = c.in(2).data();
          T* out = c.out().data();
          plan.each_row([&](const auto& offset, Index n, const auto& stride) {
            for (Index i = 0; i < n; ++i)
              out[i] = condition[offset[0] + i * stride[0]] ? a[offset[1] + i * stride[1]]
                                                            : b[offset[2] + i * stride[2]];
            out += n;
          });
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

// --- one operand ---

const Op<> neg_op{{
    .name = "neg",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<class T>(Ctx<T> c) { map(c, [](T x) { return -x; }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return -v.g(); }); }, keeps_nothing),
    .samples = {normal({3, 4}), normal({}), normal({0, 2})},
}};

const Op<> exp_op{{
    .name = "exp",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vexp(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * v.out(); }); }, keeps_output),
    .samples = {normal({3, 4}), normal({}), normal({17}), normal({0})},
}};

const Op<> log_op{{
    .name = "log",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vlog(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() / v.in(); }); }, keeps_inputs),
    .samples = {positive({3, 4}), positive({}), positive({17})},
}};

const Op<> sqrt_op{{
    .name = "sqrt",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return std::sqrt(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return 0.5 * v.g() / v.out(); }); }, keeps_output),
    .samples = {positive({3, 4}), positive({}), positive({17})},
}};

const Op<> square_op{{
    .name = "square",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<class T>(Ctx<T> c) { map(c, [](T x) { return x * x; }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return 2.0 * v.g() * v.in(); }); }, keeps_inputs),
    .samples = {normal({3, 4}), normal({}), normal({0, 2})},
}};

const Op<> abs_op{{
    .name = "abs",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<class T>(Ctx<T> c) { map(c, [](T x) { return x < 0 ? -x : x; }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * sign(v.in()); }); }, keeps_inputs),
    .samples = {away_from_zero({3, 4}), away_from_zero({})},
}};

const Op<> sign_op{{
    .name = "sign",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<class T>(Ctx<T> c) { map(c, [](T x) { return static_cast<T>((x > 0) - (x < 0)); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return 0.0 * v.g(); }); }, keeps_nothing),
    .samples = {away_from_zero({3, 4}), away_from_zero({})},
}};

const Op<> tanh_op{{
    .name = "tanh",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vtanh(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() - v.g() * square(v.out()); }); },
                     keeps_output),
    .samples = {normal({3, 4}), normal({17}), values({-20, 0, 20})},
}};

const Op<> sigmoid_op{{
    .name = "sigmoid",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { map(c, [](T x) { return kernels::vsigmoid(x); }); },
    .gradient = rule([](Vjp& v) { v.add(0, [&] { return v.g() * (v.out() * (1 - v.out())); }); },
                     keeps_output),
    .samples = {normal({3, 4}), normal({17}), values({-40, 0, 40})},
}};

const Op<> relu_op{{
    .name = "relu",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<class T>(Ctx<T> c) { map(c, [](T x) { return x < 0 ? T(0) : x; }); },
    .gradient = rule(
        [](Vjp& v) {
          v.add(0, [&] {
            const Tensor zero = scalar(0, v.g().dtype());
            return where(v.out().detach() > zero, v.g(), zero);
          });
        },
        keeps_output),
    .samples = {away_from_zero({3, 4}), away_from_zero({17}), away_from_zero({})},
}};

}  // namespace

Tensor add(const Tensor& a, const Tensor& b, Site site) { return add_op({&a, &b}, site); }
Tensor sub(const Tensor& a, const Tensor& b, Site site) { return sub_op({&a, &b}, site); }
Tensor mul(const Tensor& a, const Tensor& b, Site site) { return mul_op({&a, &b}, site); }
Tensor div(const Tensor& a, const Tensor& b, Site site) { return div_op({&a, &b}, site); }
Tensor maximum(const Tensor& a, const Tensor& b, Site site) { return maximum_op({&a, &b}, site); }
Tensor minimum(const Tensor& a, const Tensor& b, Site site) { return minimum_op({&a, &b}, site); }
Tensor less(const Tensor& a, const Tensor& b, Site site) { return less_op({&a, &b}, site); }
Tensor greater(const Tensor& a, const Tensor& b, Site site) { return greater_op({&a, &b}, site); }
Tensor equal(const Tensor& a, const Tensor& b, Site site) { return equal_op({&a, &b}, site); }
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b, Site site) {
  return where_op({&condition, &a, &b}, site);
}
Tensor neg(const Tensor& x, Site site) { return neg_op({&x}, site); }
Tensor exp(const Tensor& x, Site site) { return exp_op({&x}, site); }
Tensor log(const Tensor& x, Site site) { return log_op({&x}, site); }
Tensor sqrt(const Tensor& x, Site site) { return sqrt_op({&x}, site); }
Tensor square(const Tensor& x, Site site) { return square_op({&x}, site); }
Tensor abs(const Tensor& x, Site site) { return abs_op({&x}, site); }
Tensor sign(const Tensor& x, Site site) { return sign_op({&x}, site); }
Tensor tanh(const Tensor& x, Site site) { return tanh_op({&x}, site); }
Tensor sigmoid(const Tensor& x, Site site) { return sigmoid_op({&x}, site); }
Tensor relu(const Tensor& x, Site site) { return relu_op({&x}, site); }

const Tensor& Operand::resolve(const Operand& other, Tensor& number) const {
  if (tensor_) return *tensor_;
  const DType dtype = other.tensor_ ? other.tensor_->dtype() : f32;
  if (dtype == i32 && number_ != std::nearbyint(number_))
    throw DTypeError(
        fmt::format("the number {} cannot be an operand of an i32 tensor; convert the "
                    "tensor with to() ({})",
                    number_, SiteScope::resolve(site_).str()));
  return number = scalar(number_, dtype);
}

namespace {
// Runs a binary op on operands at the place where they were written.
Tensor operate(const Op<>& op, const Operand& a, const Operand& b) {
  Tensor number_a, number_b;
  return op({&a.resolve(b, number_a), &b.resolve(a, number_b)}, a.site());
}
}  // namespace

Tensor operator+(const Operand& a, const Operand& b) { return operate(add_op, a, b); }
Tensor operator-(const Operand& a, const Operand& b) { return operate(sub_op, a, b); }
Tensor operator*(const Operand& a, const Operand& b) { return operate(mul_op, a, b); }
Tensor operator/(const Operand& a, const Operand& b) { return operate(div_op, a, b); }
Tensor operator<(const Operand& a, const Operand& b) { return operate(less_op, a, b); }
Tensor operator>(const Operand& a, const Operand& b) { return operate(greater_op, a, b); }
Tensor operator-(const Operand& a) {
  Tensor number;
  return neg(a.resolve(a, number), a.site());
}

}  // namespace reel
