#pragma once

#include "model.h"
#include "run_directory.h"

namespace reel::char_lm {

/// Loads the model of a run and calls `f(model, config)`. Throws FileError.
template <class F>
int with_trained_model(const RunDirectory& run, F&& f) {
  const RunConfig config = run.read_config();
  const optim::Checkpoint checkpoint = run.load(config);
  return with_layer(config.settings.model, [&]<class L>() {
    const Params params(config.settings.seed, dtype_of(config.settings));
    const CharLm<L> model(params, config.vocabulary.size(), config.settings);
    run.explain([&] { nn::load_params(checkpoint.params, params); });
    return f(model, config);
  });
}

}  // namespace reel::char_lm
