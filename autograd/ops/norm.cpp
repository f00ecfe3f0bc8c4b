#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/engine/op.h>
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
// m and r, or r alone.
template <bool centred, class T>
void normalize(Ctx<T> c, const Epsilon& e) {
  const Index features = c.shape(1)[0];
  const T *gain = c.in(1).data(), *bias = centred ? c.in(2).data() : nullptr;
  each_row(static_cast<Index>(c.out().size()) / features, [&](Index row) {
    const T* x = c.in(0).data() + row * features;
    T* y = c.out().data() + row * features;
    double mean = 0, squares = 0;
    for (Index f = 0; centred && f < features; ++f) mean += static_cast<double>(x[f]);
    mean /= static_cast<double>(features);
    for (Index f = 0; f < features; ++f) {
      const double d = static_cast<double>(x[f]) - mean;
      squares += d * d;
    }
    const T m = static_cast<T>(mean);
    const T r = static_cast<T>(1 / std::sqrt(squares / static_cast<double>(features) + e.epsilon));
    for (Index f = 0; f < features; ++f)
      y[f] = (x[f] - m) * r * gain[f] + (centred ? bias[f] : T(0));
    if (!c.recording()) return;
    if (centred) c.out(1)[static_cast<std::size_t>(row)] = m;
    c.out(centred ? 2 : 1)[static_cast<std::size_t>(row)] = r;
  });
}

// With d = g gain: dx = r (d - mean(d) - n mean(d n)), without mean(d) where m is not of x.
template <bool centred, class T>
void normalize_gradient(BackwardCtx<T> c) {
  const Index features = c.shape(1)[0], rows = c.shape(0).size() / features;
  const T *x = c.in(0), *gain = c.in(1), *g = c.g();
  const T *means = centred ? c.out(1) : nullptr, *inverse = c.out(centred ? 2 : 1);
  const auto mean_of = [&](Index row) { return centred ? means[row] : T(0); };
  T *dx = c.grad(0), *dgain = c.grad(1), *dbias = centred ? c.grad(2) : nullptr;
  if (dx)
    each_row(rows, [&](Index row) {
      const T *from = x + row * features, *seed = g + row * features;
      T* to = dx + row * features;
      const T m = mean_of(row), r = inverse[row];
      double sum = 0, projection = 0;
      for (Index f = 0; f < features; ++f) {
        const double d = static_cast<double>(seed[f]) * static_cast<double>(gain[f]);
        sum += d;
        projection += d * static_cast<double>((from[f] - m) * r);
      }
      const T mean_d = centred ? static_cast<T>(sum / static_cast<double>(features)) : T(0);
      const T mean_dn = static_cast<T>(projection / static_cast<double>(features));
      for (Index f = 0; f < features; ++f)
        to[f] = r * (seed[f] * gain[f] - mean_d - (from[f] - m) * r * mean_dn);
    });
  if (dgain) std::fill_n(dgain, features, T(0));
  if (dbias) std::fill_n(dbias, features, T(0));
  for (Index row = 0; (dgain || dbias) && row < rows; ++row) {
    const T *from = x + row * features, *seed = g + row * features;
    const T m = mean_of(row), r = inverse[row];
    for (Index f = 0; dgain && f < features; ++f) dgain[f] += seed[f] * (from[f] - m) * r;
    for (Index f = 0; dbias && f < features; ++f) dbias[f] += seed[f];
  }
}

// The rows of x, one number for each.
Shape check_features(const Arguments& in, const char* what) {
  const int last = in[0].rank() - 1;
  if (last < 0 || in[0][last] == 0) in.fail("x must have an axis of features");
  for (int i = 1; i < in.count(); ++i)
    if (in[i] != Shape{in[0][last]})
      in.fail(fmt::format("{} must have shape [{}]", what, in[0][last]));
  return Shape{in[0].size() / in[0][last]};
}

const Op<Epsilon> layer_norm_op{{
    .name = "layer_norm",
    .arguments = {"x", "gain", "bias"},
    .shape = [](const Arguments& in) -> Shapes {
      const Shape rows = check_features(in, "gain and bias");
      return {in[0], rows, rows};
    },
    .forward = []<Real T>(Ctx<T> c, const Epsilon& e) { normalize<true>(c, e); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c) { normalize_gradient<true>(c); },
                      [](std::span<const Tensor> in, const Epsilon& e) -> Tensors {
                        const Tensor centred = in[0] - mean(in[0], -1, true);
                        const Tensor deviation = sqrt(mean(square(centred), -1, true) + e.epsilon);
                        return {centred / deviation * in[1] + in[2]};
                      }),
    .samples = {with_inputs(normal({5, 4}), normal({4}), normal({4})).attr(Epsilon{1e-5}),
                with_inputs(normal({2, 3, 17}), normal({17}), normal({17})).attr(Epsilon{1e-5}),
                with_inputs(normal({3}), normal({3}), normal({3})).attr(Epsilon{1e-3}),
                with_inputs(normal({130, 2}), normal({2}), normal({2})).attr(Epsilon{1e-1}),
                with_inputs(normal({0, 3}), normal({3}), normal({3})).attr(Epsilon{1e-5})},
    .hidden_outputs = 2,
}};

const Op<Epsilon> rms_norm_op{{
    .name = "rms_norm",
    .arguments = {"x", "gain"},
    .shape = [](const Arguments& in) -> Shapes {
      return {in[0], check_features(in, "the gain")};
    },
    .forward = []<Real T>(Ctx<T> c, const Epsilon& e) { normalize<false>(c, e); },
    .gradient = fused([]<Real T>(BackwardCtx<T> c) { normalize_gradient<false>(c); },
                      [](std::span<const Tensor> in, const Epsilon& e) -> Tensors {
                        return {in[0] / sqrt(mean(square(in[0]), -1, true) + e.epsilon) * in[1]};
                      }),
    .samples = {with_inputs(normal({5, 4}), normal({4})).attr(Epsilon{1e-5}),
                with_inputs(normal({2, 3, 17}), normal({17})).attr(Epsilon{1e-5}),
                with_inputs(away_from_zero({3}), normal({3})).attr(Epsilon{1e-3}),
                with_inputs(away_from_zero({4, 1}), normal({1})).attr(Epsilon{1e-3}),
                with_inputs(normal({0, 3}), normal({3})).attr(Epsilon{1e-5})},
    .hidden_outputs = 1,
}};

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon,
                  Site site) {
  return layer_norm_op({&x, &gain, &bias}, {epsilon}, site);
}

Tensor rms_norm(const Tensor& x, const Tensor& gain, double epsilon, Site site) {
  return rms_norm_op({&x, &gain}, {epsilon}, site);
}

}  // namespace reel
