#pragma once

#include <limits>
#include <optional>

#include <reel/nn/selection.h>

namespace reel::optim {

/// Settings of their own for some of the parameters of an optimizer. A parameter has those of the
/// first group that selects it, and the optimizer's where no group does:
///
///     optim::AdamW adamw(params, {.weight_decay = 0.1, .groups = {
///         {.params = "embed.*", .frozen = true},
///         {.params = "*.w_hh", .learning_rate_factor = 0.1, .max_norm = 1}}});
struct Group {
  nn::Selection params = {};  ///< every parameter, if none are named
  /// Multiplies the optimizer's learning rate, whichever schedule sets it.
  double learning_rate_factor = 1;
  /// In place of the optimizer's weight decay, and of its `decays`.
  std::optional<double> weight_decay = {};
  /// Clips the gradients of the group to this Euclidean norm of all of them, as clip_by_norm does.
  double max_norm = std::numeric_limits<double>::infinity();
  /// Neither changed nor part of the optimizer's state.
  bool frozen = false;
  /// Leaves the rows of a parameter whose gradient is 0 in a step, such as those of an Embedding
  /// for symbols that did not occur, and their moments as they are, and spends no time on them.
  /// Sgd without momentum and Adagrad do the same anyway, without weight decay. With any other
  /// optimizer such a row would go on moving by its momentum, and its moments and weights would
  /// decay; like this they wait for its next gradient. Bias corrections count all steps. Muon
  /// refuses it. Where the gradient is a RowGradient, a step does not even look at the other rows.
  bool lazy_rows = false;
};

}  // namespace reel::optim
