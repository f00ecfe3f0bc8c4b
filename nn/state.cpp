#include <reel/nn/state.h>

namespace reel::nn {

Tensor defined_state(const Tensor& state, const Tensor& x, const Param& w_hh) {
  if (state.defined()) return state;
  const Index batch = x.rank() < 2 ? 0 : x.shape()[x.rank() - 2];
  return zeros({batch, w_hh.shape()[1]}, w_hh.dtype());
}

}  // namespace reel::nn
