#include <limits>

#include <reel/autograd/kernels/vector_math.h>
#include <reel/autograd/ops/reduction.h>

namespace reel {
using namespace op;
namespace {

using namespace detail;

// --- max and min ---

// To the elements that are the result, in equal parts.
constexpr auto extremum_gradient = [](Vjp& v, const Reduction& r) {
  const Tensor one = scalar(1, v.g().dtype()), zero = scalar(0, one.dtype());
  const Tensor hits =
      where(equal(v.in().detach(), restored(v.out().detach(), v.shape(), r)), one, zero);
  const Tensor share = hits / sum_to(hits, reduced(v.shape(), r));
  v.add(0, [&] { return restored(v.g(), v.shape(), r) * share; });
};

const Samples<Reduction> extremum_samples{
    with_inputs(distinct({3, 4})).attr(Reduction{3, false}),
    with_inputs(distinct({3, 4})).attr(Reduction{2, true}),
    with_inputs(distinct({2, 3, 4})).attr(Reduction{5, false}),
    with_inputs(distinct({17, 1})).attr(Reduction{2, false}),
    with_inputs(distinct({})).attr(Reduction{0, false}),
    with_inputs(distinct({0, 4})).attr(Reduction{2, false}),
};

template <class T>
constexpr T highest = std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity()
                                                           : std::numeric_limits<T>::max();
template <class T>
constexpr T lowest = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                          : std::numeric_limits<T>::lowest();

template <class T>
void fold_max(Ctx<T> c, const Reduction& r) {
  fold(c, r, c.out(), lowest<T>, [](T y, T x) { return x > y || x != x ? x : y; });
}

const Op<Reduction> max_op{{
    .name = "max",
    .arguments = {"x"},
    .shape = nonempty_reduction,
    .forward = []<class T>(Ctx<T> c, const Reduction& r) { fold_max(c, r); },
    .gradient = rule(extremum_gradient, keeps_all),
    .samples = extremum_samples,
}};

const Op<Reduction> min_op{{
    .name = "min",
    .arguments = {"x"},
    .shape = nonempty_reduction,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          fold(c, r, c.out(), highest<T>, [](T y, T x) { return x < y || x != x ? x : y; });
        },
    .gradient = rule(extremum_gradient, keeps_all),
    .samples = extremum_samples,
}};

// --- logsumexp ---

const Op<Reduction> logsumexp_op{{
    .name = "logsumexp",
    .arguments = {"x"},
    .shape = nonempty_reduction,
    .forward =
        []<Real T>(Ctx<T> c, const Reduction& r) {
          fold_max(c, r);
          const Index n = static_cast<Index>(c.out().size());
          const Scratch<T> largest(n);
          T* y = c.out().data();
          // An infinite maximum must not turn its own difference into a NaN.
          for (Index j = 0; j < n; ++j) largest[j] = y[j] - y[j] == 0 ? y[j] : T(0);
          fold_sum(c, r, [&](T x, Index j) { return kernels::vexp(x - largest[j]); });
          for (Index j = 0; j < n; ++j) y[j] = largest[j] + kernels::vlog(y[j]);
        },
    .gradient = rule(
        [](Vjp& v, const Reduction& r) {
          v.add(0, [&] {
            return restored(v.g(), v.shape(), r) * exp(v.in() - restored(v.out(), v.shape(), r));
          });
        },
        keeps_all),
    .samples = {with_inputs(normal({3, 4})).attr(Reduction{3, false}),
                with_inputs(normal({3, 4})).attr(Reduction{2, true}),
                with_inputs(normal({2, 3, 17})).attr(Reduction{5, false}),
                with_inputs(normal({0, 4})).attr(Reduction{2, false}),
                with_inputs(values({700, 710, -700})).attr(Reduction{1, false})},
}};

// --- any and all ---

const auto truth = none("a truth value has no slope");

const Samples<Reduction> truth_samples{
    with_inputs(values({0, 2, 0})).attr(Reduction{1, false}),
    with_inputs(values({0, 0})).attr(Reduction{1, true}),
    with_inputs(away_from_zero({2, 3, 17})).attr(Reduction{5, false}),
    with_inputs(away_from_zero({})).attr(Reduction{0, false}),
    with_inputs(normal({2, 0})).attr(Reduction{2, false}),
};

const Op<Reduction> any_op{{
    .name = "any",
    .arguments = {"x"},
    .shape = any_reduction,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          fold(c, r, c.integer_out(), 0, [](std::int32_t y, T x) { return y | (x != 0); });
        },
    .gradient = truth,
    .samples = truth_samples,
    .integer_output = true,
}};

const Op<Reduction> all_op{{
    .name = "all",
    .arguments = {"x"},
    .shape = any_reduction,
    .forward =
        []<class T>(Ctx<T> c, const Reduction& r) {
          fold(c, r, c.integer_out(), 1, [](std::int32_t y, T x) { return y & (x != 0); });
        },
    .gradient = truth,
    .samples = truth_samples,
    .integer_output = true,
}};

}  // namespace

Tensor max(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  return max_op({&x}, reduction(x, axes, keepdims, "max", site), site);
}

Tensor min(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  return min_op({&x}, reduction(x, axes, keepdims, "min", site), site);
}

Tensor logsumexp(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  return logsumexp_op({&x}, reduction(x, axes, keepdims, "logsumexp", site), site);
}

Tensor any(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  return any_op({&x}, reduction(x, axes, keepdims, "any", site), site);
}

Tensor all(const Tensor& x, const Axes& axes, bool keepdims, Site site) {
  return all_op({&x}, reduction(x, axes, keepdims, "all", site), site);
}

}  // namespace reel
