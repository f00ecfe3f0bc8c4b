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

// Linear in x, with a mask that depends only on the attributes, so it is its own gradient.
REEL_EARLY const Op<Mask> dropout_op{{
    .name = "dropout",
    .arguments = {"x"},
    .shape = same_shape,
    .forward =
        []<Real T>(Ctx<T> c, const Mask& mask) {
          const T* x = c.in(0).data();
          T* y = c.out().data();
          const T scale = static_cast<T>(1 / (1 - mask.rate));
          const auto threshold = static_cast<std::uint32_t>(mask.rate * 0x1p32);
          kernels::each_word(mask.rng.seed, mask.rng.stream, mask.rng.position, c.out().size(),
                             [&](std::size_t i, std::uint32_t word) {
                               y[i] = word < threshold ? T(0) : x[i] * scale;
                             });
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

namespace reel::op::linked {
void dropout() {}
}  // namespace reel::op::linked
