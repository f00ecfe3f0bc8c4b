#include <reel/nn/layer_norm.h>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/init.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

LayerNorm::LayerNorm(const Params& p, Index size, double epsilon) : epsilon(epsilon) {
  require_positive("LayerNorm", {{"size", size}});
  if (!(epsilon > 0)) throw ValueError("LayerNorm: epsilon must be positive");
  gain = p.create("gain", {size}, init::constant(1));
  bias = p.create("bias", {size}, init::constant(0));
}

Tensor LayerNorm::operator()(const Tensor& x, Site site) const {
  const ModuleScope scope(gain.name(), site);
  return layer_norm(x, gain, bias, epsilon);
}

}  // namespace reel::nn
