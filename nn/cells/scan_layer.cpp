#include <reel/nn/cells/scan_layer.h>

#include <fmt/format.h>

#include <cmath>
#include <string_view>

#include <reel/nn/init.h>

namespace reel::nn {

ScanInitializers::ScanInitializers(const ModuleParams& p, const char* layer, Index input_size,
                                   Index hidden_size, const Initializer& weight_init,
                                   const Initializer& bias_init) {
  require_positive(p, layer, {{"input_size", input_size}, {"hidden_size", hidden_size}});
  const Initializer uniform = init::uniform(1 / std::sqrt(static_cast<double>(input_size)));
  weight = weight_init ? weight_init : uniform;
  bias = bias_init ? bias_init : uniform;
}

const Tensor& checked_state(const Tensor& state, const Tensor& x, Index size) {
  const Shape shape{x.size(1), size};
  if (!state.defined() || state.shape() == shape) return state;
  const std::string_view module = current_place.module;
  throw ShapeError(fmt::format("{}{}the state is {} {}, but has to be {} for x {}", module,
                               module.empty() ? "" : ": ", name_of(state.dtype()),
                               state.shape().str(), shape.str(), x.shape().str()),
                   SiteScope::current());
}

}  // namespace reel::nn
