#include <fmt/format.h>

#include <cmath>
#include <limits>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/layer_norm.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/rows.h>

namespace reel {
using namespace op;
namespace {

struct Epsilon {
  double epsilon;
};

// Both scale rows of features to n = (x - m) r: layer_norm with the mean m of the row and
// r = 1 / √(variance + e), rms_norm with m = 0 and r = 1 / √(mean square + e). Hidden outputs hold
// r, preceded by m in two parts, since the spread of numbers far from zero may be smaller than the
// rounding error of their mean. See kernels/layer_norm.h.
using kernels::mean_of;
using kernels::Scale;
using kernels::scale_of;
using kernels::wide_scale;
using kernels::WideScale;

template <bool centred, class T>
void normalize(Ctx<T> c, const Epsilon& e) {
  const Index features = c.shape(1)[0];
  const T *gain = c.in(1).data(), *bias = centred ? c.in(2).data() : nullptr;
  each_row(static_cast<Index>(c.out().size()) / features, [&](Index row) {
    const T* x = c.in(0).data() + row * features;
    T* y = c.out().data() + row * features;
    const Scale<T> n = kernels::normalize<centred>(x, features, e.epsilon, gain, bias, y);
    if (!c.recording()) return;
    const auto keep = [&](int output, T number) {
      c.out(output)[static_cast<std::size_t>(row)] = number;
    };
    if (centred) {
      keep(1, n.high);
      keep(2, n.low);
    }
    keep(centred ? 3 : 1, n.inverse);
  });
}

// With d = g gain: dx = r (d - mean(d) - n mean(d n)), without mean(d) if m does not depend on x.
template <bool centred, class T, class N>
void row_gradient(N n, Index features, const T* x, const T* gain, const T* g, T* dx) {
  using Number = typename N::Number;
  const auto d = [=](Index f) { return static_cast<double>(g[f]) * static_cast<double>(gain[f]); };
  const auto mean_d = centred ? static_cast<Number>(mean_of(features, d)) : Number(0);
  const auto mean_dn = static_cast<Number>(
      mean_of(features, [=](Index f) { return d(f) * static_cast<double>(n(x[f])); }));
  for (Index f = 0; f < features; ++f)
    dx[f] = static_cast<T>(n.slope(static_cast<Number>(g[f]) * static_cast<Number>(gain[f]) -
                                   mean_d - n(x[f]) * mean_dn));
}

template <bool centred, class T>
void normalize_gradient(BackwardCtx<T> c, const Epsilon& e) {
  const Index features = c.shape(1)[0], rows = c.shape(0).size() / features;
  const T *x = c.in(0), *gain = c.in(1), *g = c.g();
  const T *high = centred ? c.out(1) : nullptr, *low = centred ? c.out(2) : nullptr;
  const T* inverse = c.out(centred ? 3 : 1);
  const auto with_scale = [&](Index row, auto f) {
    if (inverse[row] == 0) [[unlikely]]
      f(wide_scale<centred>(x + row * features, features, e.epsilon));
    else
      f(centred ? Scale<T>{high[row], low[row], inverse[row]} : Scale<T>{0, 0, inverse[row]});
  };
  T *dx = c.grad(0), *dgain = c.grad(1), *dbias = centred ? c.grad(2) : nullptr;
  if (dx)
    each_row(rows, [&](Index row) {
      const Index at = row * features;
      with_scale(row, [&](const auto& n) {
        row_gradient<centred>(n, features, x + at, gain, g + at, dx + at);
      });
    });
  if (!dgain && !dbias) return;
  const Scratch<double> gains(features), biases(features);
  std::fill_n(gains.data(), features, 0.0);
  std::fill_n(biases.data(), features, 0.0);
  for (Index row = 0; row < rows; ++row) {
    const T *from = x + row * features, *seed = g + row * features;
    if (dgain)
      with_scale(row, [&](auto n) {
        for (Index f = 0; f < features; ++f)
          gains[f] += static_cast<double>(seed[f] * static_cast<T>(n(from[f])));
      });
    for (Index f = 0; dbias && f < features; ++f) biases[f] += static_cast<double>(seed[f]);
  }
  for (Index f = 0; dgain && f < features; ++f) dgain[f] = static_cast<T>(gains[f]);
  for (Index f = 0; dbias && f < features; ++f) dbias[f] = static_cast<T>(biases[f]);
}

// The rows of x, one number for each.
Shape check_features(const Arguments& in, const Epsilon& e, const char* what) {
  if (!(e.epsilon >= 0 && std::isfinite(e.epsilon)))
    in.fail<ValueError>(
        fmt::format("epsilon is {}, but has to be a finite number >= 0", e.epsilon));
  const int last = in[0].rank() - 1;
  if (last < 0 || in[0][last] == 0) in.fail("x must have an axis of features");
  for (int i = 1; i < in.count(); ++i)
    if (in[i].rank() != 1 || in[i] != in[1]) in.fail(fmt::format("{} of one size", what));
  if (in[1][0] != in[0][last])
    in.fail(fmt::format("x has {} features, but the layer takes {}", in[0][last], in[1][0]));
  return Shape{in[0].size() / in[0][last]};
}

Tensor largest_magnitude(const Tensor& x) { return max(abs(x.detach()), -1, true); }

// x / √(mean square + e), where e is the square of `root`: rows are divided by the larger of root
// and their largest magnitude, so that squares stay in range.
Tensor scaled(const Tensor& x, const Tensor& root) {
  const bool single = x.dtype() == f32;
  const double least =
      single ? double{std::numeric_limits<float>::min()} : std::numeric_limits<double>::min();
  const Tensor scale = maximum(maximum(largest_magnitude(x), root), scalar(least, x.dtype()));
  const Tensor part = x / scale;
  return part / sqrt(mean(square(part), -1, true) + square(root / scale));
}

// The same for x minus the mean of each row; that twice, to remove the rounding error of the first
// mean. Rows whose differences overflow are divided by 8 first.
Tensor centred_and_scaled(const Tensor& x, double epsilon) {
  const auto centred = [](const Tensor& all) {
    const Tensor y = all - mean(all, -1, true);
    return y - mean(y, -1, true);
  };
  const Tensor root = scalar(std::sqrt(epsilon), x.dtype()), y = centred(x);
  const double most = x.dtype() == f32 ? double{std::numeric_limits<float>::max()}
                                       : std::numeric_limits<double>::max();
  const Tensor finite = less_equal(largest_magnitude(y), most);
  if (all(finite).item() != 0) return scaled(y, root);
  const Tensor factor = where(finite, scalar(1, x.dtype()), scalar(0.125, x.dtype()));
  return scaled(centred(x * factor), root * factor);
}

REEL_EARLY const Op<Epsilon> layer_norm_op{{
    .name = "layer_norm",
    .arguments = {"x", "gain", "bias"},
    .shape = [](const Arguments& in, const Epsilon& e) -> Shapes {
      const Shape rows = check_features(in, e, "gain and bias must be vectors");
      return {in[0], rows, rows, rows};
    },
    .forward = []<Real T>(Ctx<T> c, const Epsilon& e) { normalize<true>(c, e); },
    .gradient =
        fused([]<Real T>(BackwardCtx<T> c, const Epsilon& e) { normalize_gradient<true>(c, e); },
              [](std::span<const Tensor> in, const Epsilon& e) -> Tensors {
                return {centred_and_scaled(in[0], e.epsilon) * in[1] + in[2]};
              }),
    .samples = {with_inputs(normal({5, 4}), normal({4}), normal({4})).attr(Epsilon{1e-5}),
                with_inputs(normal({2, 3, 17}), normal({17}), normal({17})).attr(Epsilon{1e-5}),
                with_inputs(normal({3}), normal({3}), normal({3})).attr(Epsilon{1e-3}),
                with_inputs(normal({130, 2}), normal({2}), normal({2})).attr(Epsilon{1e-1}),
                with_inputs(normal({0, 3}), normal({3}), normal({3})).attr(Epsilon{1e-5})},
    .hidden_outputs = 3,
}};

REEL_EARLY const Op<Epsilon> rms_norm_op{{
    .name = "rms_norm",
    .arguments = {"x", "gain"},
    .shape = [](const Arguments& in, const Epsilon& e) -> Shapes {
      return {in[0], check_features(in, e, "the gain must be a vector")};
    },
    .forward = []<Real T>(Ctx<T> c, const Epsilon& e) { normalize<false>(c, e); },
    .gradient =
        fused([]<Real T>(BackwardCtx<T> c, const Epsilon& e) { normalize_gradient<false>(c, e); },
              [](std::span<const Tensor> in, const Epsilon& e) -> Tensors {
                const Tensor root = scalar(std::sqrt(e.epsilon), in[0].dtype());
                return {scaled(in[0], root) * in[1]};
              }),
    .samples = {with_inputs(normal({5, 4}), normal({4})).attr(Epsilon{1e-5}),
                with_inputs(normal({2, 3, 17}), normal({17})).attr(Epsilon{1e-5}),
                with_inputs(away_from_zero({3}), normal({3})).attr(Epsilon{1e-3}),
                with_inputs(away_from_zero({4, 1}), normal({1})).attr(Epsilon{1e-3}),
                with_inputs(normal({0, 3}), normal({3})).attr(Epsilon{1e-5})},
    .hidden_outputs = 1,
}};

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, Arg<double> epsilon,
                  Site site) {
  return layer_norm_op({&x, &gain, &bias}, {epsilon}, site);
}

Tensor rms_norm(const Tensor& x, const Tensor& gain, Arg<double> epsilon, Site site) {
  return rms_norm_op({&x, &gain}, {epsilon}, site);
}

}  // namespace reel

namespace reel::op::linked {
void norm() {}
}  // namespace reel::op::linked
