#include "optimizer_tasks.h"

#include <fmt/format.h>

#include <functional>
#include <map>
#include <memory>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/init.h>
#include <reel/optim/adadelta.h>
#include <reel/optim/adafactor.h>
#include <reel/optim/adagrad.h>
#include <reel/optim/adam.h>
#include <reel/optim/adamax.h>
#include <reel/optim/adamw.h>
#include <reel/optim/asgd.h>
#include <reel/optim/lbfgs.h>
#include <reel/optim/muon.h>
#include <reel/optim/nadam.h>
#include <reel/optim/radam.h>
#include <reel/optim/rmsprop.h>
#include <reel/optim/rprop.h>
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
  if constexpr (requires { options.epsilon += 0; }) set("epsilon", options.epsilon);
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
  if constexpr (requires { options.coefficients; }) set("coefficients", options.coefficients);
  if constexpr (requires { options.decay; }) set("decay", options.decay);
  if constexpr (requires { options.start; }) set("start", options.start);
  if constexpr (requires { options.shrink; }) set("shrink", options.shrink);
  if constexpr (requires { options.grow; }) set("grow", options.grow);
  if constexpr (requires { options.least_step; }) set("least_step", options.least_step);
  if constexpr (requires { options.greatest_step; }) set("greatest_step", options.greatest_step);
  if constexpr (requires { options.beta2_decay; }) set("beta2_decay", options.beta2_decay);
  if constexpr (requires { options.threshold; }) set("threshold", options.threshold);
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
    {"adafactor", make<optim::Adafactor, optim::AdafactorOptions>},
    {"asgd", make<optim::Asgd, optim::AsgdOptions>},
    {"rprop", make<optim::Rprop, optim::RpropOptions>},
};

// A step of the optimizer, given its number.
using Step = std::function<void(int)>;

Step steps_of_gradients(Json& task, const Params& params, const nn::NamedTensors& request) {
  const bool maximize = take(task, "maximize", false);
  const Make make = optimizers.at(take<std::string>(task, "optimizer", ""));
  const std::shared_ptr<optim::Optimizer> optimizer = make(task, params);
  return [=, &request](int step) {
    Gradients gradients(params);
    for (const Param& p : params.list())
      gradients.set(*p.entry(), request[fmt::format("g.{}.{}", step, p.name())]);
    if (maximize) gradients *= -1;
    optimizer->step(gradients);
  };
}

// The loss is the sum of log(1 + exp(a p)) + p^2 / 2, with numbers `a.<name>`.
Step steps_of_losses(Json& task, const Params& params, const nn::NamedTensors& request) {
  task.erase("optimizer");
  optim::LbfgsOptions options;
  take_into(task, "learning_rate", options.learning_rate);
  take_into(task, "least_gradient", options.least_gradient);
  take_into(task, "line_search", options.line_search);
  require_empty(task);
  const auto lbfgs = std::make_shared<optim::Lbfgs>(params, options);
  return [=, &request](int) {
    lbfgs->step([&] {
      Tape tape;
      Tensor loss = scalar(0, f64);
      for (const Param& p : params.list())
        loss = loss + sum(softplus(request["a." + p.name()] * p.tensor())) +
               sum(square(p.tensor())) / 2;
      return std::pair(loss.item(), tape.gradient(loss, params));
    });
  };
}

}  // namespace

nn::NamedTensors run_optimizer(Json& task, const nn::NamedTensors& request) {
  const int steps = take(task, "steps", 0);
  const nn::NamedTensors start = request.part("p.");
  const Params params(0, start.tensors.begin()->second.dtype());
  for (const auto& [name, value] : start.tensors)
    params.create(name, value.shape(), nn::init::constant(0)).set(value);
  const Step make_step = task.at("optimizer") == "lbfgs"
                             ? steps_of_losses(task, params, request)
                             : steps_of_gradients(task, params, request);
  nn::NamedTensors answer;
  for (int step = 0; step < steps; ++step) {
    make_step(step);
    for (const Param& p : params.list())
      answer.tensors[fmt::format("p.{}.{}", step, p.name())] = p.value();
  }
  return answer;
}

}  // namespace third_party
