#include "checkpoint.h"

#include <fmt/format.h>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

#include "model.h"
#include "progress.h"

namespace reel::char_lm {
namespace {

// Checked before a model is created, for which there may not be enough memory.
void require_shapes(const nn::NamedTensors& params, const RunConfig& config) {
  std::size_t count = 0;
  each_parameter(
      config.settings, config.vocabulary.size(), [&](const std::string& name, const Shape& shape) {
        const Tensor& value = params[name];
        if (value.shape() != shape || value.dtype() != dtype_of(config.settings))
          throw ValueError(fmt::format(
              "tensor {} is {} {}, but {} {} in the model of the run's configuration", name,
              name_of(value.dtype()), value.shape().str(), config.settings.dtype, shape.str()));
        ++count;
      });
  if (count != params.tensors.size())
    throw ValueError(
        fmt::format("it has {} parameters, but the model of the run's configuration {}",
                    params.tensors.size(), count));
}

void require_finite(const nn::NamedTensors& tensors) {
  if (const std::string name = first_not_finite(tensors); !name.empty())
    throw ValueError(
        fmt::format("tensor {} holds a number that is not finite", printable(name, 80)));
}

// Every step of the training is one of every parameter.
void require_optimizer(const optim::RunState& checkpoint, const RunConfig& config, Index step) {
  require_finite(checkpoint.optimizer);
  each_parameter(
      config.settings, config.vocabulary.size(), [&](const std::string& name, const Shape&) {
        const std::string entry = fmt::format("{}.steps.{}", config.settings.optimizer, name);
        const Tensor& steps = checkpoint.optimizer[entry];
        if (steps.size() != 1 || steps.to_vector().front() != static_cast<double>(step))
          throw ValueError(fmt::format("its {} is not the {} steps of the training", entry, step));
      });
}

// Within an epoch there is a state for each layer, of one tensor or, for an lstm, two.
void require_carried(const optim::RunState& checkpoint, const Settings& s, Index window) {
  if (checkpoint.carried.empty() != (window == 0))
    throw ValueError("it has a carried state at the beginning of an epoch, or none within one");
  const auto count = static_cast<std::size_t>(s.layers) * (s.model == "lstm" ? 2 : 1);
  bool fits = checkpoint.carried.empty() || checkpoint.carried.size() == count;
  for (const Tensor& x : checkpoint.carried)
    fits =
        fits && x.shape() == Shape{s.batch, s.hidden} && x.dtype() == dtype_of(s) && is_finite(x);
  if (!fits) throw ValueError("its carried state is not one of this model");
}

void require_rng(const Rng::State& rng, const Settings& settings) {
  const Rng::State begin = dropout_rng(settings).state();
  if (rng.seed != begin.seed || rng.stream != begin.stream)
    throw ValueError("its run.rng is not the generator that dropout draws from with this --seed");
}

}  // namespace

void require_state(const optim::RunState& checkpoint, const RunConfig& config) {
  require_shapes(checkpoint.params, config);
  require_finite(checkpoint.params);
  const Progress at = progress_of(checkpoint);
  require_optimizer(checkpoint, config, at.step);
  require_carried(checkpoint, config.settings, at.window);
  require_rng(checkpoint.rng, config.settings);
}

}  // namespace reel::char_lm
