#include "optimizer_tasks.h"

#include <fmt/format.h>

#include <functional>
#include <map>
#include <memory>

#include <reel/autograd/ops.h>
#include <reel/nn/init.h>
#include <reel/optim/adadelta.h>
#include <reel/optim/adagrad.h>
#include <reel/optim/adam.h>
#include <reel/optim/adamax.h>
#include <reel/optim/adamw.h>
#include <reel/optim/muon.h>
#include <reel/optim/nadam.h>
#include <reel/optim/radam.h>
#include <reel/optim/rmsprop.h>
#include <reel/optim/sgd.h>

using namespace reel;

namespace third_party {
namespace {

using Made = std::unique_ptr<optim::Optimizer>;

// The options that are there under the names of Reel; the defaults of Reel for the others.
template <class O, class Options>
Made make(Json& task, const Params& params) {
  Options options;
  const auto set = [&](const char* name, auto& option) { take_into(task, name, option); };
  set("learning_rate", options.learning_rate);
  set("weight_decay", options.weight_decay);
  if (take(task, "lazy_rows", false)) options.groups = {{.lazy_rows = true}};
  if constexpr (requires { options.momentum; }) set("momentum", options.momentum);
  if constexpr (requires { options.dampening; }) set("dampening", options.dampening);
  if constexpr (requires { options.nesterov; }) set("nesterov", options.nesterov);
  if constexpr (requires { options.beta1; }) set("beta1", options.beta1);
  if constexpr (requires { options.beta2; }) set("beta2", options.beta2);
  if constexpr (requires { options.epsilon; }) set("epsilon", options.epsilon);
  if constexpr (requires { options.amsgrad; }) set("amsgrad", options.amsgrad);
  if constexpr (requires { options.alpha; }) set("alpha", options.alpha);
  if constexpr (requires { options.centered; }) set("centered", options.centered);
  if constexpr (requires { options.rho; }) set("rho", options.rho);
  if constexpr (requires { options.decoupled; }) set("decoupled", options.decoupled);
  if constexpr (requires { options.momentum_decay; }) set("momentum_decay", options.momentum_decay);
  if constexpr (requires { options.learning_rate_decay; })
    set("learning_rate_decay", options.learning_rate_decay);
  if constexpr (requires { options.initial_sum; }) set("initial_sum", options.initial_sum);
  if constexpr (requires { options.iterations; }) set("iterations", options.iterations);
  require_empty(task);
  return std::make_unique<O>(params, options);
}

using Make = Made (*)(Json&, const Params&);
const std::map<std::string, Make> optimizers = {
    {"sgd", make<optim::Sgd, optim::SgdOptions>},
    {"adam", make<optim::Adam, optim::AdamOptions>},
    {"adamw", make<optim::AdamW, optim::AdamWOptions>},
    {"rmsprop", make<optim::RmsProp, optim::RmsPropOptions>},
    {"adagrad", make<optim::Adagrad, optim::AdagradOptions>},
    {"adadelta", make<optim::Adadelta, optim::AdadeltaOptions>},
    {"nadam", make<optim::NAdam, optim::NAdamOptions>},
    {"radam", make<optim::RAdam, optim::RAdamOptions>},
    {"adamax", make<optim::Adamax, optim::AdamaxOptions>},
    {"muon", make<optim::Muon, optim::MuonOptions>},
};

}  // namespace

nn::NamedTensors run_optimizer(Json& task, const nn::NamedTensors& request) {
  const Make make = optimizers.at(take<std::string>(task, "optimizer", ""));
  const int steps = take(task, "steps", 0);
  const bool maximize = take(task, "maximize", false);
  const nn::NamedTensors start = request.part("p.");
  const Params params(0, start.tensors.begin()->second.dtype());
  for (const auto& [name, value] : start.tensors)
    params.create(name, value.shape(), nn::init::constant(0)).set(value);
  const std::vector<Param> all = params.list();
  const Made optimizer = make(task, params);

  nn::NamedTensors answer;
  for (int step = 0; step < steps; ++step) {
    Gradients gradients(params);
    for (const Param& p : all)
      gradients.set(*p.entry(), request[fmt::format("g.{}.{}", step, p.name())]);
    if (maximize) gradients *= -1;
    optimizer->step(gradients);
    for (const Param& p : all) answer.tensors[fmt::format("p.{}.{}", step, p.name())] = p.value();
  }
  return answer;
}

}  // namespace third_party
