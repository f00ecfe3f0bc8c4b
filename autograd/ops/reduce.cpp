#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <reel/autograd/ops/elementwise.h>
#include <reel/autograd/ops/reduction.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;
using kernels::broadcast_sum;

// --- sum and mean ---

template <class T, class Y>
void fold_mean(Ctx<T> c, const Reduction& r, Y* y) {
  const double count = static_cast<double>(group_size(c.shape(0), r));
  bool finite = true;
  fold_sum(
      c, r, [](T x, Index) { return x; },
      [&](Index j, double total) {
        finite &= std::isfinite(total);
        y[j] = static_cast<Y>(total / count);
      });
  if (finite || std::is_same_v<T, float>) return;
  // A sum of f64 may overflow even if the mean does not.
  fold_sum(
      c, r, [](T x, Index) { return x * static_cast<T>(kernels::narrow); },
      [=](Index j, double total) {
        if (!std::isfinite(y[j])) y[j] = static_cast<Y>(total / count / kernels::narrow);
      });
}

REEL_EARLY const Samples<Reduction> sum_samples{
    with_inputs(normal({3, 4})).attr(Reduction{3, false}),
    with_inputs(normal({3, 4})).attr(Reduction{1, false}),
    with_inputs(normal({3, 4})).attr(Reduction{2, true}),
    with_inputs(normal({2, 3, 4})).attr(Reduction{5, false}),
    with_inputs(normal({2, 1, 3, 17})).attr(Reduction{0b1010, false}),
    with_inputs(normal({})).attr(Reduction{0, false}),
    with_inputs(normal({0, 3})).attr(Reduction{2, false}),
};

REEL_EARLY const Op<Reduction> sum_op{{
    .name = "sum",
    .arguments = {"x"},
    .shape = any_reduction,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          broadcast_sum(c.shape(0), c.in(0).data(), reduced(c.shape(0), r), c.out().data());
        },
    .gradient = rule(
        [](Vjp& v, const Reduction& r) {
          v.add(0, [&] { return broadcast_to(restored(v.g(), v.shape(), r), v.shape()); });
        },
        keeps_nothing),
    .samples = sum_samples,
}};

REEL_EARLY const Op<Reduction> mean_op{{
    .name = "mean",
    .arguments = {"x"},
    .shape = any_reduction,
    .forward = []<Real T>(Ctx<T> c, const Reduction& r) { fold_mean(c, r, c.out().data()); },
    .gradient = rule(
        [](Vjp& v, const Reduction& r) {
          v.add(0, [&] {
            const Tensor share = v.g() / static_cast<double>(group_size(v.shape(), r));
            return broadcast_to(restored(share, v.shape(), r), v.shape());
          });
        },
        keeps_nothing),
    .samples = sum_samples,
}};

// --- prod ---

// Multiplies the two halves of an axis until one element is left.
Tensor product_along(Tensor x, int axis) {
  if (x.size(axis) == 0) return ones(x.shape().with(axis, 1), x.dtype());
  for (Index n = x.size(axis); n > 1; n = x.size(axis)) {
    const Tensor halves = slice(x, axis, 0, n / 2) * slice(x, axis, n / 2, n / 2 * 2);
    x = n % 2 == 0 ? halves : concat({halves, slice(x, axis, n - 1, n)}, axis);
  }
  return x;
}

// Whether a product in double never left the range of normal numbers: once it has, it stays 0,
// infinite or not a number.
bool in_range(double product) { return std::abs(product) > 0x1p-1000 && std::isfinite(product); }

struct PlainProduct {
  double value = 1;

  void multiply(double x) { value *= x; }
  void multiply(const PlainProduct& other) { value *= other.value; }
  double number() const { return value; }
};

// A product of any range, with the same roundings: value times 2 to the exponent.
struct WideProduct {
  double value = 1;
  Index exponent = 0;

  void multiply(double x) {
    int own = 0, other = 0;
    if (value == 0 || x == 0 || !std::isfinite(value) || !std::isfinite(x)) {
      value *= x;
    } else {
      value = std::frexp(value, &own) * std::frexp(x, &other);
      exponent += own + other;
    }
  }
  void multiply(const WideProduct& other) {
    multiply(other.value);
    exponent += other.exponent;
  }
  double number() const {
    constexpr Index enough = 5000;
    return std::ldexp(value, static_cast<int>(std::clamp(exponent, -enough, enough)));
  }
};

template <class T>
void fold_product(Ctx<T> c, const Reduction& r) {
  const std::span<T> y = c.out();
  if constexpr (std::is_same_v<T, std::int32_t>) {
    fold(c, r, y, T(1), [](T a, T x) { return static_cast<T>(Modular<T>(a) * Modular<T>(x)); });
  } else {
    const Scratch<double> plain(std::ssize(y));
    const std::span<double> products(plain.data(), y.size());
    fold(c, r, products, 1.0, [](double a, T x) { return a * static_cast<double>(x); });
    std::ranges::transform(products, y.begin(), [](double p) { return static_cast<T>(p); });
    if (std::ranges::all_of(products, in_range)) return;
    const Scratch<WideProduct> wide(std::ssize(y));
    std::fill_n(wide.data(), y.size(), WideProduct{});
    const T* x = c.in(0).data();
    each_element(c.shape(0), r, [&](Index i, Index j) { wide[j].multiply(double{x[i]}); });
    for (std::size_t j = 0; j < y.size(); ++j)
      y[j] = static_cast<T>(wide[static_cast<Index>(j)].number());
  }
}

// The product of the others: of those before an element times those after it. No division, so zeros
// need no special case. Whether the products were in range.
template <class P, class T>
bool product_gradient(BackwardCtx<T> c, const Reduction& r) {
  const Index n = c.shape(0).size(), results = c.out_shape().size();
  const Scratch<Index> result(n);
  each_element(c.shape(0), r, [&](Index i, Index j) { result[i] = j; });
  const Scratch<P> before(n), product(results);
  const auto all_in_range = [&] {
    return std::all_of(product.data(), product.data() + results,
                       [](const P& p) { return in_range(p.value); });
  };
  const T *x = c.in(0), *g = c.g();
  T* to = c.grad(0);
  std::fill_n(product.data(), results, P{});
  for (Index i = 0; i < n; ++i) {
    before[i] = product[result[i]];
    product[result[i]].multiply(double{x[i]});
  }
  const bool were_in_range = all_in_range();
  for (Index j = 0; j < results; ++j) product[j] = P{double{g[j]}};
  for (Index i = n - 1; i >= 0; --i) {
    P& after = product[result[i]];
    before[i].multiply(after);
    to[i] = static_cast<T>(before[i].number());
    after.multiply(double{x[i]});
  }
  return were_in_range && all_in_range();
}

REEL_EARLY const Op<Reduction> prod_op{{
    .name = "prod",
    .arguments = {"x"},
    .shape = any_reduction,
    .forward = []<class T>(Ctx<T> c, const Reduction& r) { fold_product(c, r); },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c, const Reduction& r) {
          if (!product_gradient<PlainProduct>(c, r)) product_gradient<WideProduct>(c, r);
        },
        [](std::span<const Tensor> in, const Reduction& r) -> Tensors {
          Tensor y = in[0];
          for (int axis = 0; axis < y.rank(); ++axis)
            if (r.axes >> axis & 1) y = product_along(y, axis);
          return {reshape(y, result_shape(in[0].shape(), r))};
        },
        keeps_inputs),
    .samples = {with_inputs(normal({3, 4})).attr(Reduction{3, false}),
                with_inputs(normal({3, 4})).attr(Reduction{1, true}),
                with_inputs(normal({2, 3, 4})).attr(Reduction{5, false}),
                with_inputs(positive({17})).attr(Reduction{1, false}),
                with_inputs(values({2, 0, -1.5, 3, 0.5})).attr(Reduction{1, false}),
                with_inputs(values({0, -1.5, 0, 3})).attr(Reduction{1, false}),
                with_inputs(values({0, 0, 2, 0})).attr(Reduction{1, true}),
                with_inputs(normal({3, 1})).attr(Reduction{2, false}),
                with_inputs(normal({})).attr(Reduction{0, false}),
                with_inputs(normal({2, 0})).attr(Reduction{2, false})},
}};

// --- var, std and norm ---

struct Spread {
  Reduction over;
  int correction;
};

constexpr auto spread_shape = [](const Arguments& in, const Spread& s) -> Shape {
  if (s.correction < 0)
    in.fail<ValueError>(fmt::format("the correction {} is negative", s.correction));
  const Shape result = result_shape(in[0], s.over);
  const Index count = group_size(in[0], s.over);
  if (count <= s.correction && result.size() > 0)
    in.fail(fmt::format("{} elements are too few for correction {}", count, s.correction));
  return result;
};

double degrees_of_freedom(const Shape& input, const Spread& s) {
  return static_cast<double>(group_size(input, s.over) - s.correction);
}

// y = √(Σ d(x, j)² / divisor), where d gives double. Squares of f32 fit easily; those of f64 may
// overflow or underflow even if the root does not, and are then recomputed from numbers divided by
// a power of two near the largest.
template <class T, class F>
void fold_root(Ctx<T> c, const Reduction& r, double divisor, F d) {
  T* y = c.out().data();
  bool in_range = true;
  fold_sum(
      c, r, [d](T x, Index j) { return d(x, j) * d(x, j); },
      [&](Index j, double total) {
        in_range &= total > 1e-280 && std::isfinite(total);
        y[j] = static_cast<T>(std::sqrt(total / divisor));
      });
  if (in_range || std::is_same_v<T, float>) return;
  const Index n = static_cast<Index>(c.out().size());
  const Scratch<double> scale(n);
  std::fill_n(scale.data(), n, 0.0);
  each_element(c.shape(0), r, [&](Index i, Index j) {
    scale[j] = std::max(scale[j], std::abs(d(c.in(0)[static_cast<std::size_t>(i)], j)));
  });
  for (Index j = 0; j < n; ++j)
    scale[j] = scale[j] > 0 && std::isfinite(scale[j]) ? std::exp2(std::ilogb(scale[j])) : 1.0;
  fold_sum(
      c, r,
      [&](T x, Index j) {
        const double part = d(x, j) / scale[j];
        return part * part;
      },
      [&](Index j, double total) { y[j] = static_cast<T>(scale[j] * std::sqrt(total / divisor)); });
}

// The elements' deviations from the mean of their group. The second mean corrects the rounding
// error of the first.
Tensor deviations(const Tensor& x, const Spread& s) {
  const auto centred = [&](const Tensor& y) { return y - mean_op({&y}, {s.over.axes, true}, {}); };
  return centred(centred(x));
}

// Whether the difference of an element and the mean may be infinite, given the standard deviations:
// it is at most √n times these.
bool may_overflow(const Tensor& deviation, const Shape& input, const Spread& s) {
  const double root = std::sqrt(static_cast<double>(group_size(input, s.over)));
  return dispatch_real(deviation.dtype(), [&]<class T>() {
    const double limit = static_cast<double>(std::numeric_limits<T>::max()) / 4 / root;
    return std::ranges::any_of(deviation.values<T>(),
                               [=](T y) { return static_cast<double>(y) > limit; });
  });
}

// a / b, and 0 where b is 0.
Tensor quotient_or_zero(const Tensor& a, const Tensor& b) {
  const Tensor one = scalar(1, b.dtype()), zero = scalar(0, b.dtype());
  const Tensor undefined = equal(b.detach(), zero);
  return where(undefined, zero, a / where(undefined, one, b));
}

REEL_EARLY const Samples<Spread> spread_samples{
    with_inputs(normal({3, 4})).attr(Spread{{3, false}, 0}),
    with_inputs(normal({3, 4})).attr(Spread{{1, false}, 1}),
    with_inputs(normal({2, 3, 4})).attr(Spread{{5, false}, 1}),
    with_inputs(normal({2, 17})).attr(Spread{{2, true}, 0}),
    with_inputs(values({100, 101, 103})).attr(Spread{{1, false}, 0}),
    with_inputs(normal({0, 3})).attr(Spread{{2, false}, 1}),
};

REEL_EARLY const Op<Spread> var_op{{
    .name = "var",
    .arguments = {"x"},
    .shape = spread_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Spread& s) {
          const Scratch<double> mean(static_cast<Index>(c.out().size()));
          fold_mean(c, s.over, mean.data());
          T* y = c.out().data();
          const double freedom = degrees_of_freedom(c.shape(0), s);
          fold_sum(
              c, s.over,
              [&mean](T x, Index j) {
                const double d = static_cast<double>(x) - mean[j];
                return d * d;
              },
              [=](Index j, double total) { y[j] = static_cast<T>(total / freedom); });
        },
    .gradient = rule(
        [](Vjp& v, const Spread& s) {
          v.add(0, [&] {
            const Tensor slope = v.g() * (2 / degrees_of_freedom(v.shape(), s));
            return restored(slope, v.shape(), s.over) * deviations(v.in(), s);
          });
        },
        keeps_inputs),
    .samples = spread_samples,
}};

REEL_EARLY const Op<Spread> std_op{{
    .name = "std",
    .arguments = {"x"},
    .shape = spread_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Spread& s) {
          const Scratch<double> mean(static_cast<Index>(c.out().size()));
          fold_mean(c, s.over, mean.data());
          fold_root(c, s.over, degrees_of_freedom(c.shape(0), s),
                    [&mean](T x, Index j) { return static_cast<double>(x) - mean[j]; });
        },
    .gradient = rule(
        [](Vjp& v, const Spread& s) {
          v.add(0, [&] {
            const Tensor slope = v.g() / degrees_of_freedom(v.shape(), s);
            const Tensor deviation = restored(v.out(), v.shape(), s.over);
            const Tensor quotient =
                may_overflow(v.out(), v.shape(), s)
                    ? quotient_or_zero(deviations(v.in() * 0.125, s), deviation * 0.125)
                    : quotient_or_zero(deviations(v.in(), s), deviation);
            return times_slope(restored(slope, v.shape(), s.over), quotient);
          });
        },
        keeps_all),
    .samples = spread_samples,
}};

REEL_EARLY const Op<Reduction> norm_op{{
    .name = "norm",
    .arguments = {"x"},
    .shape = any_reduction,
    .forward =
        []<Real T>(Ctx<T> c, const Reduction& r) {
          fold_root(c, r, 1, [](T x, Index) { return static_cast<double>(x); });
        },
    .gradient = rule(
        [](Vjp& v, const Reduction& r) {
          v.add(0, [&] {
            return times_slope(restored(v.g(), v.shape(), r),
                               quotient_or_zero(v.in(), restored(v.out(), v.shape(), r)));
          });
        },
        keeps_all),
    .samples = {with_inputs(normal({3, 4})).attr(Reduction{3, false}),
                with_inputs(normal({3, 4})).attr(Reduction{1, true}),
                with_inputs(normal({2, 3, 4})).attr(Reduction{5, false}),
                with_inputs(normal({17})).attr(Reduction{1, false}),
                with_inputs(away_from_zero({3, 1})).attr(Reduction{2, false}),
                with_inputs(normal({2, 0})).attr(Reduction{2, false})},
}};

}  // namespace

std::uint32_t Axes::mask(int rank, const char* op, Site site) const {
  if (axes_.empty()) return (1u << rank) - 1;
  std::uint32_t bits = 0;
  for (int axis : axes_) {
    const std::uint32_t bit = 1u << normalized_axis(axis, rank, op, site);
    if (bits & bit)
      throw ShapeError(fmt::format("{}: axes ({}) name an axis of a tensor of rank {} twice", op,
                                   fmt::join(axes_, ", "), rank),
                       site);
    bits |= bit;
  }
  return bits;
}

Tensor sum(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return sum_op({&x}, reduction(x, axes, keepdims, "sum", site), site);
}

Tensor mean(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return mean_op({&x}, reduction(x, axes, keepdims, "mean", site), site);
}

Tensor prod(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return prod_op({&x}, reduction(x, axes, keepdims, "prod", site), site);
}

Tensor var(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Arg<int> correction, Site site) {
  return var_op({&x}, {reduction(x, axes, keepdims, "var", site), correction}, site);
}

Tensor std(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Arg<int> correction, Site site) {
  return std_op({&x}, {reduction(x, axes, keepdims, "std", site), correction}, site);
}

Tensor norm(const Tensor& x, const Axes& axes, Arg<bool> keepdims, Site site) {
  return norm_op({&x}, reduction(x, axes, keepdims, "norm", site), site);
}

}  // namespace reel

namespace reel::op::linked {
void reduce() {}
}  // namespace reel::op::linked
