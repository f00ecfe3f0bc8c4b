#include <reel/nn/linear.h>

#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/init.h>
#include <reel/nn/sizes.h>

namespace reel::nn {
namespace {

Initializer uniform_for(Index input_size) {
  return init::uniform(1 / std::sqrt(static_cast<double>(input_size)));
}

// What the store says of a layer with the weights of an embedding.
std::string tied_kind(const Param& w) {
  return fmt::format("Linear tied to {}", module_of(w.name()));
}

}  // namespace

Linear::Linear(const ModuleParams& p, Arg<Index> input_size, Arg<Index> output_size,
               const LinearOptions& options) {
  begin_module(p, "Linear", {{"input_size", input_size}, {"output_size", output_size}});
  const Initializer uniform = uniform_for(input_size);
  w = p.create("w", {output_size, input_size}, options.weight_init ? options.weight_init : uniform);
  if (options.bias)
    b = p.create("b", {output_size}, options.bias_init ? options.bias_init : uniform);
}

Linear::Linear(const ModuleParams& p, const Embedding& embedding, const LinearOptions& options)
    : w(embedding.w) {
  begin_module(p, tied_kind(w), {});
  if (options.weight_init)
    throw ValueError(
        fmt::format("{}: weight_init is given, but the weights are those of the embedding {}",
                    module_name(p, "Linear"), module_of(w.name())),
        SiteScope::current());
  if (options.bias)
    b = p.create("b", {w.shape()[0]},
                 options.bias_init ? options.bias_init : uniform_for(w.shape()[1]));
}

Tensor Linear::operator()(const Tensor& x, Site site) const {
  const ModuleScope scope(own().name(), site);
  require_features("Linear", own(), x, w.shape()[1], site);
  return b.defined() ? affine(x, w, b) : matmul(x, w, false, true);
}

Tensor Linear::cross_entropy(const Tensor& x, const Tensor& targets,
                             const LinearCrossEntropyOptions& options, Site site) const {
  const ModuleScope scope(own().name(), site);
  require_features("Linear", own(), x, w.shape()[1], site);
  return linear_cross_entropy(x, w, b.defined() ? Tensor(b) : Tensor(), targets, options);
}

}  // namespace reel::nn
