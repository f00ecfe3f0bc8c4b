#pragma once

#include <reel/autograd/cell.h>
#include <reel/autograd/kernels/recurrent.h>

namespace reel::nn {

/// The parameters of a cell as its kernels read them, for steps forward in time.
template <Real T>
kernels::Direction<T> direction_of(const CellInputs& parameters) {
  const auto start = [](const Tensor& x) { return x.defined() ? x.begin<T>() : nullptr; };
  return {false,
          start(parameters.w_ih),
          start(parameters.w_hh),
          start(parameters.b),
          start(parameters.recurrent_bias),
          start(parameters.numbers),
          start(parameters.projection),
          {}};
}

}  // namespace reel::nn
