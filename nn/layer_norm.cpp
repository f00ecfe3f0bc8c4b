#include <reel/nn/layer_norm.h>

#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/init.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

LayerNorm::LayerNorm(const ModuleParams& p, Arg<Index> size, Arg<double> epsilon)
    : epsilon(epsilon) {
  begin_module(p, "LayerNorm", {{"size", size}});
  if (!(epsilon > 0 && std::isfinite(epsilon)))
    throw ValueError(fmt::format("{}: epsilon must be positive and finite, not {}",
                                 module_name(p, "LayerNorm"), epsilon),
                     SiteScope::current());
  gain = p.create("gain", {size}, init::constant(1));
  bias = p.create("bias", {size}, init::constant(0));
}

Tensor LayerNorm::operator()(const Tensor& x, Site site) const {
  const ModuleScope scope(gain.name(), site);
  require_features("LayerNorm", gain, x, gain.shape()[0], site);
  return layer_norm(x, gain, bias, epsilon);
}

}  // namespace reel::nn
