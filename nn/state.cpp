#include <reel/nn/state.h>

#include <fmt/format.h>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/message.h>
#include <reel/autograd/ops.h>

namespace reel::nn {

namespace {

Shape state_shape(const Tensor& x, Index size) {
  return {x.rank() < 2 ? 0 : x.shape()[x.rank() - 2], size};
}

}  // namespace

const Tensor& checked_state(const Tensor& state, const Tensor& x, Index size) {
  const Shape shape = state_shape(x, size);
  if (!state.defined() || x.rank() < 2 || state.shape() == shape) return state;
  const std::string_view module = current_place.module;
  throw ShapeError(fmt::format("{}{}the state is {} {}, but has to be {} for x {}", module,
                               module.empty() ? "" : ": ", name_of(state.dtype()),
                               state.shape().str(), shape.str(), x.shape().str()),
                   SiteScope::current());
}

Tensor defined_state(const Tensor& state, const Tensor& x, Index size) {
  const Tensor& given = checked_state(state, x, size);
  return given.defined() ? given : zeros(state_shape(x, size), x.dtype());
}

namespace detail {

void check_rows(const char* caller, std::string_view prefix, std::span<const std::string> names,
                std::span<const Tensor> tensors, Site site) {
  const auto described = [&](std::size_t i) {
    return fmt::format("{}{} is {} {}", printable(prefix), printable(names[i]),
                       name_of(tensors[i].dtype()), tensors[i].shape().str());
  };
  std::size_t first = tensors.size();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& x = tensors[i];
    if (!x.defined()) continue;
    if (x.rank() == 0)
      throw ShapeError(
          fmt::format("{}: {}, but its first axis must be that of the batch", caller, described(i)),
          site);
    if (first == tensors.size()) first = i;
    if (x.size(0) != tensors[first].size(0))
      throw ShapeError(fmt::format("{}: the tensors of a state must have the same rows, but {} "
                                   "and {}",
                                   caller, described(first), described(i)),
                       site);
  }
}

void check_selection(const Tensor& rows, Site site) {
  if (!rows.defined()) throw ValueError("select_rows: rows is undefined", site);
  const std::string message = fmt::format("select_rows: rows must be i32 [K], not {} {}",
                                          name_of(rows.dtype()), rows.shape().str());
  if (rows.dtype() != i32) throw DTypeError(message, site);
  if (rows.rank() != 1) throw ShapeError(message, site);
}

Tensor take_rows(const Tensor& x, const Tensor& rows) {
  if (!x.defined() || x.rank() == 2) return x.defined() ? gather_rows(x, rows) : x;
  const Index features = x.size(0) == 0 ? 0 : x.size() / x.size(0);
  return reshape(gather_rows(reshape(x, {x.size(0), features}), rows),
                 x.shape().with(0, rows.size()));
}

}  // namespace detail
}  // namespace reel::nn
