#pragma once

#include <cstdio>

#include <fmt/format.h>

#include "model.h"
#include "run_directory.h"
#include "updates.h"

namespace reel::char_lm {

/// Loads the model of a run, with the weights of a checkpoint of it, and calls
/// `f.operator()<L>(model, params, config)` with the precision of its products. Throws FileError.
template <class F>
int with_trained_params(const RunDirectory& run, const std::string& checkpoint_name, F&& f) {
  const RunConfig config = run.read_config();
  const nn::Location where = run.checkpoint_file(checkpoint_name);
  const optim::RunState checkpoint = run.load(config, where);
  const PrecisionScope precision(precision_of(config.settings));
  return with_layer(config.settings.model, [&]<class L>() {
    const Params params(config.settings.seed, dtype_of(config.settings));
    const CharLm<L> model(params, config.vocabulary->size(), config.settings);
    run.explain(where, [&] { nn::load_params(weights_of(checkpoint, params), params); });
    return f.template operator()<L>(model, params, config);
  });
}

/// The same for `f(model, config)`, which computes in the run's precision.
template <class F>
int with_trained_model(const RunDirectory& run, const std::string& checkpoint_name, F&& f) {
  return with_trained_params(
      run, checkpoint_name,
      [&]<class L>(const CharLm<L>& model, const Params&, const RunConfig& config) {
        if (const auto note = note_on_precision(config.settings); !note.empty())
          fmt::print(stderr, "note   {}\n", note);
        return f(model, config);
      });
}

}  // namespace reel::char_lm
