#pragma once

#include <reel/nn/named_tensors.h>

#include "request.h"

namespace third_party {

/// The parameters `p.<step>.<name>` after each step of an optimizer that begins with `p.<name>` and
/// is given the gradients `g.<step>.<name>`, their opposites with `maximize`; of L-BFGS after each
/// call for a loss with the numbers `a.<name>`.
reel::nn::NamedTensors run_optimizer(Json& task, const reel::nn::NamedTensors& request);

}  // namespace third_party
