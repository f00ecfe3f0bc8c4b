#pragma once

#include <utility>

#include <reel/autograd/substitution.h>
#include <reel/nn/named_tensors.h>

namespace reel::nn {

/// The parameters and the tensors of their names, as a Substitution takes them. Throws ValueError,
/// listing the names that there are, for a tensor that belongs to no parameter.
Substitution::Values values_in_place(const Params& params, const NamedTensors& values,
                                     Site site = {});

/// f(), with tensors in place of the values of the parameters that have their full names; the other
/// parameters keep their own. For evaluation on an average of the weights, weights from which some
/// connections are dropped, and, with tensors that are recorded on the tape, weights after a step
/// through which gradients flow (meta-learning):
///
///     nn::NamedTensors fast;
///     for (const Param& p : params.list()) fast.tensors[p.name()] = p - 0.1 * gradients[p];
///     const Tensor loss = nn::functional_call(params, fast, [&] { return loss_of(model(x), y); });
///
/// A tensor that is not recorded is a constant, so a loss does not depend on that parameter. Only
/// this thread is affected. Throws ValueError for a tensor that belongs to no parameter or is
/// undefined, ShapeError or DTypeError for one of another kind; a parameter cannot be changed by f.
template <class F>
decltype(auto) functional_call(const Params& params, const NamedTensors& values, F&& f,
                               Site site = {}) {
  const Substitution substitution(values_in_place(params, values, site), site);
  return std::forward<F>(f)();
}

}  // namespace reel::nn
