#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/philox.h>
#include <reel/autograd/ops.h>

namespace reel {
using namespace op;
namespace {

struct Mask {
  Rng::State rng;
  double rate;
};

// Linear in x, with a mask that depends only on the attributes, so it is its own gradient. Element
// i takes word i % 4 of block i / 4.
REEL_EARLY const Op<Mask> dropout_op{{
    .name = "dropout",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Mask& mask) {
          constexpr std::size_t lanes = kernels::philox_lanes, words = 4;
          const T* x = c.in(0).data();
          T* y = c.out().data();
          const T scale = static_cast<T>(1 / (1 - mask.rate));
          const auto threshold = static_cast<std::uint32_t>(mask.rate * 0x1p32);
          const std::size_t n = c.out().size();
          for (std::size_t begin = 0; begin < n; begin += lanes * words) {
            const kernels::PhiloxWords bits = kernels::philox_blocks(
                mask.rng.seed, mask.rng.stream, mask.rng.position + begin / words);
            std::array<std::uint32_t, lanes * words> in_order;
            for (std::size_t l = 0; l < lanes; ++l)
              for (std::size_t w = 0; w < words; ++w) in_order[l * words + w] = bits[w][l];
            const std::size_t count = std::min(n - begin, in_order.size());
            for (std::size_t i = 0; i < count; ++i)
              y[begin + i] = in_order[i] < threshold ? T(0) : x[begin + i] * scale;
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

Tensor dropout(const Tensor& x, Arg<double> rate, Rng& rng, Site site) {
  if (!(rate >= 0 && rate < 1))
    throw ValueError(fmt::format("dropout: the rate must be in [0, 1), not {}", rate), site);
  const Tensor y = dropout_op({&x}, {rng.state(), rate}, site);
  rng.skip(static_cast<std::uint64_t>(x.size() + 3) / 4);
  return y;
}

}  // namespace reel
