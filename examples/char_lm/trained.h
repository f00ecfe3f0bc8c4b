#pragma once

#include "model.h"
#include "run_directory.h"
#include "updates.h"

namespace reel::char_lm {

/// Loads the model of a run and calls `f.operator()<L>(model, params, config)`. Throws FileError.
template <class F>
int with_trained_params(const RunDirectory& run, F&& f) {
  const RunConfig config = run.read_config();
  const optim::RunState checkpoint = run.load(config);
  return with_layer(config.settings.model, [&]<class L>() {
    const Params params(config.settings.seed, dtype_of(config.settings));
    const CharLm<L> model(params, config.vocabulary->size(), config.settings);
    run.explain([&] { nn::load_params(weights_of(checkpoint, params), params); });
    return f.template operator()<L>(model, params, config);
  });
}

/// The same for `f(model, config)`.
template <class F>
int with_trained_model(const RunDirectory& run, F&& f) {
  return with_trained_params(
      run, [&]<class L>(const CharLm<L>& model, const Params&, const RunConfig& config) {
        return f(model, config);
      });
}

}  // namespace reel::char_lm
