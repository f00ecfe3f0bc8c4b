#include "checkpoint.h"

#include <fmt/format.h>

#include <limits>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/optim/reduce_on_plateau.h>

#include "model.h"
#include "progress.h"

namespace reel::char_lm {
namespace {

// Checked before a model is created, for which there may not be enough memory.
void require_shapes(const nn::NamedTensors& params, const RunConfig& config) {
  std::size_t count = 0;
  each_parameter(
      config.settings, config.vocabulary->size(), [&](const std::string& name, const Shape& shape) {
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

// Every update of the training is one of every parameter.
void require_optimizer(const optim::RunState& checkpoint, const RunConfig& config, Index updates) {
  require_finite(checkpoint.optimizer);
  each_parameter(
      config.settings, config.vocabulary->size(), [&](const std::string& name, const Shape&) {
        const std::string entry = fmt::format("{}.steps.{}", config.settings.optimizer, name);
        const Tensor& steps = checkpoint.optimizer[entry];
        if (steps.size() != 1 || steps.to_vector().front() != static_cast<double>(updates))
          throw ValueError(
              fmt::format("its {} is not the {} updates of the training", entry, updates));
      });
}

// What else a training with these settings has: ReduceOnPlateau and Ema.
void require_more(const optim::RunState& checkpoint, const RunConfig& config, Index updates) {
  std::size_t count = 0;
  if (config.settings.schedule == "plateau") {
    optim::ReduceOnPlateau().restore(checkpoint.more);
    count += optim::ReduceOnPlateau().state().tensors.size();
  }
  if (config.settings.ema > 0) {
    if (nn::count_in(checkpoint.more, "ema.count") != updates)
      throw ValueError(fmt::format("its ema.count is not the {} updates of the training", updates));
    ++count;
    each_parameter(config.settings, config.vocabulary->size(),
                   [&](const std::string& name, const Shape& shape) {
                     if (updates == 0) return;
                     const Tensor& value = checkpoint.more["ema.values." + name];
                     if (value.shape() != shape || value.dtype() != f64 || !is_finite(value))
                       throw ValueError(
                           fmt::format("its ema.values.{} is not an average of the "
                                       "parameter",
                                       name));
                     ++count;
                   });
  }
  if (count != checkpoint.more.tensors.size())
    throw ValueError(
        fmt::format("it has {} entries of averages and schedules, but such a training "
                    "{}",
                    checkpoint.more.tensors.size(), count));
}

// Where updates look back over earlier ones, the parameters of those are part of the state.
void require_earlier(const optim::RunState& checkpoint, const RunConfig& config, Index done) {
  const Index count = earlier_updates(config.settings, done);
  if (std::ssize(checkpoint.earlier) != count)
    throw ValueError(fmt::format("it has the parameters of {} earlier updates, not of {}",
                                 checkpoint.earlier.size(), count));
  for (const nn::NamedTensors& params : checkpoint.earlier) {
    require_shapes(params, config);
    require_finite(params);
  }
}

// Within an epoch there is a state for each layer, of one tensor or, for an lstm, two; it is that
// after `steps` steps.
void require_carried(const optim::RunState& checkpoint, const Settings& s, Index steps) {
  if (checkpoint.carried.empty() != (steps == 0))
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

// For each parameter there are also up to four entries of the optimizer and one of an average, and
// two of each layer's carried state; a file has up to 250,000 entries.
void require_storable(const Settings& s) {
  Index params = 0;
  each_parameter(s, 1, [&](const std::string&, const Shape&) { ++params; });
  const Index earlier = earlier_updates(s, std::numeric_limits<Index>::max());
  const Index own = 4 + (s.optimizer == "nadam" ? 1 : 0) + (s.ema > 0 ? 1 : 0);
  constexpr Index most = 250'000 - 50;
  if (params * (own + earlier) + 2 * s.layers <= most) return;
  if (params * own + 2 * s.layers > most)
    throw ValueError(
        fmt::format("--layers {} are more than fit into a checkpoint with --optimizer "
                    "{} and --ema {}; give fewer",
                    s.layers, s.optimizer, s.ema));
  throw ValueError(fmt::format(
      "--tbptt-length {} looks back over {} updates, and a checkpoint would have {} parameters of "
      "each, more than fit in it; give a smaller one or a larger --tbptt-update than {}",
      s.tbptt_length, earlier, params, s.tbptt_update));
}

void require_state(const optim::RunState& checkpoint, const RunConfig& config) {
  require_shapes(checkpoint.params, config);
  require_finite(checkpoint.params);
  const Progress at = progress_of(checkpoint);
  require_optimizer(checkpoint, config, at.updates());
  require_more(checkpoint, config, at.updates());
  const Index done = (at.window - at.carried_from) * config.settings.tbptt_update;
  require_earlier(checkpoint, config, done);
  require_carried(checkpoint, config.settings, done - steps_looked_back(config.settings, done));
  require_rng(checkpoint.rng, config.settings);
}

}  // namespace reel::char_lm
