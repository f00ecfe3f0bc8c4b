#include <reel/nn/state.h>

#include <fmt/format.h>

#include <reel/autograd/engine/scope.h>

namespace reel::nn {

Tensor defined_state(const Tensor& state, const Tensor& x, const Param& w_hh) {
  const Shape shape{x.rank() < 2 ? 0 : x.shape()[x.rank() - 2], w_hh.shape()[1]};
  if (!state.defined()) return zeros(shape, w_hh.dtype());
  if (x.rank() >= 2 && state.shape() != shape) {
    const std::string_view name = module_of(w_hh.name());
    throw ShapeError(fmt::format("{}{}the state is {} {}, but has to be {} for x {}", name,
                                 name.empty() ? "" : ": ", name_of(state.dtype()),
                                 state.shape().str(), shape.str(), x.shape().str()),
                     SiteScope::current());
  }
  return state;
}

}  // namespace reel::nn
