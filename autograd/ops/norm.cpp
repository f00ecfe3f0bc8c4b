#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/op.h>
#include <reel/autograd/ops.h>

namespace reel {
namespace {

// --- layer_norm ---

struct Epsilon {
  double epsilon;
};

// Over rows of F features. The hidden outputs hold each row's mean m and r = 1 / sqrt(var + eps).
// With n = (x - m) r and d = g gain: dx = r (d - mean(d) - n mean(d n)).
const Op<Epsilon> layer_norm_op{{
    .name = "layer_norm",
    .arguments = {"x", "gain", "bias"},
    .shape = [](const Arguments& in) -> Shapes {
      const int last = in[0].rank() - 1;
      if (last < 0 || in[0][last] == 0) in.fail("x must have an axis of features");
      if (in[1] != Shape{in[0][last]} || in[2] != in[1])
        in.fail(fmt::format("gain and bias must have shape [{}]", in[0][last]));
      const Shape rows{in[0].size() / in[0][last]};
      return {in[0], rows, rows};
    },
    .forward =
        []<Real T>(Ctx<T> c, const Epsilon& e) {
          const Index features = c.shape(1)[0];
          const Index rows = static_cast<Index>(c.out().size()) / features;
          const T *gain = c.in(1).data(), *bias = c.in(2).data();
          for (Index r = 0; r < rows; ++r) {
            const T* x = c.in(0).data() + r * features;
            T* y = c.out().data() + r * features;
            double sum = 0, squares = 0;
            for (Index f = 0; f < features; ++f) sum += static_cast<double>(x[f]);
            const double mean = sum / static_cast<double>(features);
            for (Index f = 0; f < features; ++f) {
              const double d = static_cast<double>(x[f]) - mean;
              squares += d * d;
            }
            const double variance = squares / static_cast<double>(features);
            const T m = static_cast<T>(mean),
                    inverse = static_cast<T>(1 / std::sqrt(variance + e.epsilon));
            for (Index f = 0; f < features; ++f) y[f] = (x[f] - m) * inverse * gain[f] + bias[f];
            if (!c.recording()) continue;
            c.out(1)[static_cast<std::size_t>(r)] = m;
            c.out(2)[static_cast<std::size_t>(r)] = inverse;
          }
        },
    .gradient = fused(
        []<Real T>(BackwardCtx<T> c, const Epsilon&) {
          const Index features = c.shape(1)[0], rows = c.shape(0).size() / features;
          T *dx = c.grad(0), *dgain = c.grad(1), *dbias = c.grad(2);
          if (dgain) std::fill_n(dgain, features, T(0));
          if (dbias) std::fill_n(dbias, features, T(0));
          for (Index row = 0; row < rows; ++row) {
            const T *x = c.in(0) + row * features, *g = c.g() + row * features, *gain = c.in(1);
            const T m = c.out(1)[row], r = c.out(2)[row];
            for (Index f = 0; dgain && f < features; ++f) dgain[f] += g[f] * (x[f] - m) * r;
            for (Index f = 0; dbias && f < features; ++f) dbias[f] += g[f];
            if (!dx) continue;
            double sum = 0, projection = 0;
            for (Index f = 0; f < features; ++f) {
              const double d = static_cast<double>(g[f]) * static_cast<double>(gain[f]);
              sum += d;
              projection += d * static_cast<double>((x[f] - m) * r);
            }
            const T mean_d = static_cast<T>(sum / static_cast<double>(features));
            const T mean_dn = static_cast<T>(projection / static_cast<double>(features));
            for (Index f = 0; f < features; ++f)
              dx[row * features + f] = r * (g[f] * gain[f] - mean_d - (x[f] - m) * r * mean_dn);
          }
        },
        [](std::span<const Tensor> in, const Epsilon& e) -> Tensors {
          const Tensor centred = in[0] - mean(in[0], -1, true);
          const Tensor deviation = sqrt(mean(square(centred), -1, true) + e.epsilon);
          return {centred / deviation * in[1] + in[2]};
        }),
    .samples = {with_inputs(normal({5, 4}), normal({4}), normal({4})).attr(Epsilon{1e-5}),
                with_inputs(normal({2, 3, 17}), normal({17}), normal({17})).attr(Epsilon{1e-5}),
                with_inputs(normal({3}), normal({3}), normal({3})).attr(Epsilon{1e-3}),
                with_inputs(normal({0, 3}), normal({3}), normal({3})).attr(Epsilon{1e-5})},
    .hidden_outputs = 2,
}};

// --- dropout ---

struct Mask {
  Rng::State rng;
  double rate;
};

// Linear in x with a mask that the attributes alone determine, so it is its own gradient.
const Op<Mask> dropout_op{{
    .name = "dropout",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Mask& mask) {
          const auto x = c.in(0), y = std::span<const T>(c.out());
          const T scale = static_cast<T>(1 / (1 - mask.rate));
          const auto threshold = static_cast<std::uint64_t>(mask.rate * 0x1p32);
          Rng rng(mask.rng);
          std::array<std::uint32_t, 4> bits{};
          for (std::size_t i = 0; i < y.size(); ++i) {
            if (i % 4 == 0) bits = rng.next();
            c.out()[i] = bits[i % 4] < threshold ? T(0) : x[i] * scale;
          }
        },
    .gradient = rule(
        [](Vjp& v, const Mask& mask) {
          v.add(0, [&] {
            Rng replay(mask.rng);
            return dropout(v.g(), mask.rate, replay);
          });
        },
        keeps_nothing),
    .samples = {with_inputs(normal({5, 7})).attr(Mask{{1, 2, 3}, 0.5}),
                with_inputs(normal({9})).attr(Mask{{1, 2, 3}, 0.0}),
                with_inputs(normal({0})).attr(Mask{{1, 2, 3}, 0.5})},
}};

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon,
                  Site site) {
  return layer_norm_op({&x, &gain, &bias}, {epsilon}, site);
}

Tensor dropout(const Tensor& x, double rate, Rng& rng, Site site) {
  if (!(rate >= 0 && rate < 1))
    throw ValueError(
        fmt::format("dropout: the rate must be in [0, 1), not {} ({})", rate, site.str()));
  const Tensor y = dropout_op({&x}, {rng.state(), rate}, site);
  rng.skip(static_cast<std::uint64_t>(x.size() + 3) / 4);
  return y;
}

}  // namespace reel
