#pragma once

#include <reel/optim/run_state.h>

#include "run_config.h"

namespace reel::char_lm {

/// Throws ValueError if the checkpoints of such a training would not fit in a file.
void require_storable(const Settings& settings);

/// Throws ValueError unless a training with this configuration, on some text, can be in this state.
/// The optimizer's state is checked as far as this needs no model.
void require_state(const optim::RunState& checkpoint, const RunConfig& config);

}  // namespace reel::char_lm
