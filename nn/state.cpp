#include <reel/nn/state.h>

#include <fmt/format.h>

#include <reel/autograd/engine/scope.h>

namespace reel::nn {

namespace {

Shape state_shape(const Tensor& x, const Param& w_hh) {
  return {x.rank() < 2 ? 0 : x.shape()[x.rank() - 2], w_hh.shape()[1]};
}

}  // namespace

const Tensor& checked_state(const Tensor& state, const Tensor& x, const Param& w_hh) {
  const Shape shape = state_shape(x, w_hh);
  if (state.defined() && x.rank() >= 2 && state.shape() != shape) {
    const std::string_view name = module_of(w_hh.name());
    throw ShapeError(fmt::format("{}{}the state is {} {}, but has to be {} for x {}", name,
                                 name.empty() ? "" : ": ", name_of(state.dtype()),
                                 state.shape().str(), shape.str(), x.shape().str()),
                     SiteScope::current());
  }
  return state;
}

Tensor defined_state(const Tensor& state, const Tensor& x, const Param& w_hh) {
  const Tensor& given = checked_state(state, x, w_hh);
  return given.defined() ? given : zeros(state_shape(x, w_hh), w_hh.dtype());
}

}  // namespace reel::nn
