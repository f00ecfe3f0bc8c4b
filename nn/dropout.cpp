#include <reel/nn/dropout.h>

#include <reel/autograd/ops.h>
#include <reel/nn/sizes.h>

namespace reel::nn {

Dropout::Dropout(double rate) : rate(rate) { require_rate("Dropout", rate); }

Tensor Dropout::operator()(const Tensor& x, const Mode& mode, Site site) const {
  return mode.training() && rate > 0 ? dropout(x, rate, mode.rng(), site) : x;
}

}  // namespace reel::nn
