#include <reel/nn/cells/scan_layer.h>

#include <cmath>

#include <reel/nn/init.h>

namespace reel::nn {

ScanInitializers::ScanInitializers(const ModuleParams& p, const char* layer, Index input_size,
                                   Index hidden_size, const Initializer& weight_init,
                                   const Initializer& bias_init) {
  begin_module(p, layer, {{"input_size", input_size}, {"hidden_size", hidden_size}});
  const Initializer uniform = init::uniform(1 / std::sqrt(static_cast<double>(input_size)));
  weight = weight_init ? weight_init : uniform;
  bias = bias_init ? bias_init : uniform;
}

}  // namespace reel::nn
