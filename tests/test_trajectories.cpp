// Optimizers and schedules step by step beside PyTorch; golden/make_golden_optim.py says with what.
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/files/safetensors.h>
#include <reel/optim/lbfgs.h>
#include <reel/optim/optimizers.h>
#include <reel/optim/reduce_on_plateau.h>
#include <reel/optim/schedule.h>

#include <cmath>
#include <map>
#include <set>

#include "golden_directory.h"
#include "optimizers.h"

using namespace reel;
using namespace reel::testing;

namespace {

const nn::NamedTensors& golden() {
  static const nn::NamedTensors file = nn::load_safetensors(REEL_GOLDEN_DIR "/optim.safetensors");
  return file;
}

const std::map<std::string, Make> optimizers = {
    {"sgd", make<Sgd>(SgdOptions{.learning_rate = 0.5})},
    {"sgd_l2", make<Sgd>(SgdOptions{.learning_rate = 0.5, .weight_decay = 0.1})},
    {"momentum", make<Sgd>(SgdOptions{.learning_rate = 0.5, .momentum = 0.9})},
    {"dampened",
     make<Sgd>(SgdOptions{
         .learning_rate = 0.5, .momentum = 0.9, .dampening = 0.3, .weight_decay = 0.01})},
    {"nesterov", make<Sgd>(SgdOptions{.learning_rate = 0.5, .momentum = 0.9, .nesterov = true})},
    {"nesterov_l2",
     make<Sgd>(
         SgdOptions{.learning_rate = 0.5, .momentum = 0.9, .nesterov = true, .weight_decay = 0.1})},
    {"adam", make<Adam>(AdamOptions{.learning_rate = 0.1})},
    {"adam_l2",
     make<Adam>(AdamOptions{
         .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.99, .epsilon = 1e-3, .weight_decay = 0.1})},
    {"amsgrad", make<Adam>(AdamOptions{.learning_rate = 0.1, .beta2 = 0.8, .amsgrad = true})},
    {"adamw", make<AdamW>(AdamWOptions{.learning_rate = 0.1})},
    {"adamw_amsgrad",
     make<AdamW>(
         AdamWOptions{.learning_rate = 0.1, .beta2 = 0.8, .weight_decay = 0.1, .amsgrad = true})},
    {"nadam", make<NAdam>(NAdamOptions{.learning_rate = 0.1})},
    {"nadam_l2", make<NAdam>(NAdamOptions{.learning_rate = 0.1,
                                          .beta1 = 0.8,
                                          .beta2 = 0.95,
                                          .momentum_decay = 0.1,
                                          .weight_decay = 0.1})},
    {"nadam_decoupled",
     make<NAdam>(NAdamOptions{.learning_rate = 0.1, .decoupled = true, .weight_decay = 0.1})},
    {"radam", make<RAdam>(RAdamOptions{.learning_rate = 0.1})},
    {"radam_l2", make<RAdam>(RAdamOptions{
                     .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.1})},
    {"radam_decoupled",
     make<RAdam>(RAdamOptions{.learning_rate = 0.1, .decoupled = true, .weight_decay = 0.1})},
    {"adamax", make<Adamax>(AdamaxOptions{.learning_rate = 0.1})},
    {"adamax_l2",
     make<Adamax>(AdamaxOptions{
         .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3, .weight_decay = 0.1})},
    {"rmsprop", make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .alpha = 0.95})},
    {"rmsprop_momentum",
     make<RmsProp>(
         RmsPropOptions{.learning_rate = 0.1, .alpha = 0.95, .epsilon = 1e-3, .momentum = 0.9})},
    {"rmsprop_centered",
     make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .alpha = 0.9, .centered = true})},
    {"rmsprop_all", make<RmsProp>(RmsPropOptions{.learning_rate = 0.05,
                                                 .alpha = 0.9,
                                                 .epsilon = 1e-2,
                                                 .momentum = 0.8,
                                                 .centered = true,
                                                 .weight_decay = 0.1})},
    {"adagrad", make<Adagrad>(AdagradOptions{.learning_rate = 0.1})},
    {"adagrad_all", make<Adagrad>(AdagradOptions{.learning_rate = 0.1,
                                                 .learning_rate_decay = 0.1,
                                                 .initial_sum = 0.5,
                                                 .epsilon = 1e-3,
                                                 .weight_decay = 0.1})},
    {"adadelta", make<Adadelta>(AdadeltaOptions{})},
    {"adadelta_l2", make<Adadelta>(AdadeltaOptions{
                        .learning_rate = 0.5, .rho = 0.8, .epsilon = 1e-3, .weight_decay = 0.1})},
    {"lion", make<Lion>(LionOptions{.learning_rate = 0.1})},
    {"lion_decay", make<Lion>(LionOptions{
                       .learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.1})},
    {"muon", make<Muon>(MuonOptions{.learning_rate = 0.1})},
    {"muon_all", make<Muon>(MuonOptions{.learning_rate = 0.1,
                                        .momentum = 0.8,
                                        .nesterov = false,
                                        .scale = MuonScale::match_adamw,
                                        .weight_decay = 0.01})},
    {"muon_coefficients",
     make<Muon>(
         MuonOptions{.learning_rate = 0.1, .iterations = 3, .coefficients = {3.0, -3.2, 1.2}})},
    {"asgd", make<Asgd>(AsgdOptions{.learning_rate = 0.5})},
    {"asgd_all",
     make<Asgd>(AsgdOptions{
         .learning_rate = 0.5, .decay = 0.1, .power = 0.5, .start = 5, .weight_decay = 0.01})},
    {"rprop", make<Rprop>(RpropOptions{})},
    {"rprop_all", make<Rprop>(RpropOptions{.learning_rate = 0.1,
                                           .shrink = 0.3,
                                           .grow = 1.5,
                                           .least_step = 0.05,
                                           .greatest_step = 0.8})},
    {"adafactor", make<Adafactor>(AdafactorOptions{.learning_rate = 0.5})},
    {"adafactor_all", make<Adafactor>(AdafactorOptions{.learning_rate = 0.2,
                                                       .beta2_decay = -0.5,
                                                       .epsilon = 0.05,
                                                       .least_size = 0.5,
                                                       .threshold = 1.5,
                                                       .weight_decay = 0.1})},
};

// The parameters that a trajectory has, at their start.
Params parameters(const nn::NamedTensors& trace) {
  const Params params(0, f64);
  for (const auto& [name, values] : trace.tensors) {
    if (name.size() != 1) continue;
    const Shape& shape = values.shape();
    params.create(
        name, shape.rank() == 3 ? Shape{shape[1], shape[2]} : Shape{shape[1]},
        [&, &values = values](Rng&, const Shape& of_one, DType) { return row(values, 0, of_one); });
  }
  return params;
}

}  // namespace

TEST_CASE("optimizers follow PyTorch's trajectories for 20 steps") {
  for (const auto& item : optimizers) {
    const std::string& name = item.first;
    CAPTURE(name);
    const nn::NamedTensors trace = golden().part(name + ".");
    const Params params = parameters(trace);
    const auto optimizer = item.second(params);
    for (Index step = 0; step < 20; ++step) {
      Gradients gradients(params);
      for (const Param& param : params.list())
        gradients.set(*param.entry(), row(trace["grad." + param.name()], step, param.shape()));
      optimizer->step(gradients);
      for (const Param& param : params.list()) {
        CAPTURE(step);
        CHECK(distance(param.value(), row(trace[param.name()], step + 1, param.shape())) < 1e-13);
      }
    }
    const nn::NamedTensors averages = trace.part("average.");  // of ASGD
    for (const auto& [of, average] : averages.tensors)
      CHECK(distance(optimizer->state()["asgd.average." + of], average) < 1e-13);
  }
}

TEST_CASE("every optimizer has trajectories, and every trajectory its optimizer") {
  std::set<std::string, std::less<>> names;
  for (const auto& [name, make_optimizer] : optimizers)
    names.insert(make_optimizer(parameters(golden().part("muon.")))->name());
  for (const OptimizerKind& kind : optimizer_kinds()) CHECK(names.contains(kind.name));
  CHECK(names.size() == optimizer_kinds().size());
  for (const auto& [name, settings] : golden().metadata)
    if (name != "torch" && !name.starts_with("lbfgs")) CHECK(optimizers.contains(name));
}

TEST_CASE("optimizers by name have the defaults of their options") {
  const Params params(0, f64), same(0, f64);
  for (const Params& p : {params, same}) create(p, "p", {1, -2});
  const auto by_name = make_optimizer("adam", params, 0.25);
  Adam by_options(same, {.learning_rate = 0.25});
  CHECK(by_name->name() == "adam");
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    by_name->step(gradients_of(params, seed));
    by_options.step(gradients_of(same, seed));
  }
  check_same_bits(params, same);
  CHECK_THROWS_WITH_AS(
      make_optimizer("adan", params, 1),
      doctest::Contains("there is no optimizer \"adan\"; did you mean adam? There "
                        "are: sgd, adam, adamw, nadam, radam, adamax, rmsprop, "
                        "adagrad, adadelta, lion, muon, adafactor and 2 more (" __FILE__ ":"),
      ValueError);
}

TEST_CASE("L-BFGS follows PyTorch's trajectory") {
  const std::pair<const char*, LbfgsOptions> runs[] = {
      {"lbfgs", {.iterations = 4, .evaluations = 5}},
      {"lbfgs_short", {.learning_rate = 0.5, .iterations = 3, .evaluations = 5, .history = 2}},
      {"lbfgs_fixed",
       {.learning_rate = 0.5,
        .iterations = 4,
        .evaluations = 5,
        .history = 3,
        .line_search = false}},
      {"lbfgs_few", {.iterations = 9, .evaluations = 3, .line_search = false}}};
  for (const auto& run : runs) {
    const std::string name = run.first;
    const LbfgsOptions& options = run.second;
    CAPTURE(name);
    const nn::NamedTensors trace = golden().part(name + ".");
    const Params params = parameters(trace);
    const auto evaluate = [&] {
      Tape tape;
      const Tensor u = params["u"], w = params["w"], b = params["b"];
      const Tensor output = matmul(tanh(matmul(golden()["x"], u)), w) + b;
      const Tensor loss = mean(softplus(-golden()["target"] * output)) +
                          0.01 * (sum(square(u)) + sum(square(w)) + sum(square(b)));
      return std::pair(loss.item(), tape.gradient(loss, params));
    };
    Lbfgs lbfgs(params, options);
    for (Index call = 0; call < 5; ++call) {
      CAPTURE(call);
      lbfgs.step(evaluate);
      CHECK(lbfgs.evaluations() == trace["evaluations"].at({call}));
      for (const Param& param : params.list())
        CHECK(distance(param.value(), row(trace[param.name()], call + 1, param.shape())) < 1e-9);
    }
  }
}

TEST_CASE("schedules have PyTorch's rates") {
  const std::pair<const char*, Schedule> schedules[] = {
      {"step", StepDecay{.learning_rate = 0.5, .factor = 0.1, .every = 7}},
      {"exponential", ExponentialDecay{.learning_rate = 0.5, .factor = 0.9, .after = 1}},
      {"polynomial", PolynomialDecay{.learning_rate = 0.5, .length = 30, .power = 2}},
      {"cosine", CosineDecay{.learning_rate = 0.5, .length = 30, .least = 0.01}},
      {"restarts", CosineDecay{.learning_rate = 0.5, .length = 4, .least = 0.01, .restarts = true}},
      {"longer_restarts",
       CosineDecay{
           .learning_rate = 0.5, .length = 4, .least = 0.01, .restarts = true, .growth = 2}},
      {"one_cycle", OneCycle{.learning_rate = 0.5, .length = 31}},
      {"warmup_step",
       Warmup{.steps = 5, .then = StepDecay{.learning_rate = 0.5, .factor = 0.1, .every = 7}}},
  };
  for (const auto& item : schedules) {
    const std::string name = item.first;
    const Schedule& schedule = item.second;
    CAPTURE(name);
    const std::vector<double> expected = golden()["schedule." + name].to_vector();
    for (Index t = 1; t <= 30; ++t) {
      CAPTURE(t);
      CHECK(std::abs(schedule.at(t) - expected[static_cast<std::size_t>(t - 1)]) < 1e-12);
    }
  }
}

TEST_CASE("a reduction on a plateau has PyTorch's rates, also after a resume") {
  const std::pair<const char*, ReduceOnPlateauOptions> runs[] = {
      {"default", {.patience = 3}},
      {"halved", {.factor = 0.5, .patience = 0}},
      {"cooling",
       {.factor = 0.5, .patience = 1, .threshold = 0.3, .cooldown = 3, .least_factor = 0.02}}};
  const std::vector<double> losses = golden()["plateau.losses"].to_vector();
  for (const auto& run : runs) {
    const std::string name = run.first;
    const ReduceOnPlateauOptions& options = run.second;
    CAPTURE(name);
    const std::vector<double> expected = golden()["plateau." + name].to_vector();
    ReduceOnPlateau plateau(options);
    for (std::size_t i = 0; i < losses.size(); ++i) {
      CAPTURE(i);
      plateau.update(losses[i]);
      CHECK(std::abs(0.5 * plateau.factor() - expected[i]) < 1e-12);
      ReduceOnPlateau resumed(options);
      resumed.restore(plateau.state());
      plateau = resumed;
    }
  }
}

TEST_CASE("L-BFGS where there is nothing to gain, and where numbers are not finite") {
  const Params params(0, f64);
  Param p = create(params, "p", {1e-5});
  const auto square_loss = [&] {
    Tape tape;
    const Tensor loss = sum(square(p)) / 2;
    return std::pair(loss.item(), tape.gradient(loss, params));
  };
  Lbfgs lbfgs(params);
  for (int call = 0; call < 3; ++call) lbfgs.step(square_loss);  // the slope is below the limit
  CHECK(p.value().item() == 1e-5);

  const auto no_number = [&] { return std::pair(1.0, gradient_of(params, p, {not_a_number})); };
  CHECK_THROWS_WITH_AS(lbfgs.step(no_number),
                       doctest::Contains("lbfgs: the loss is 1 and the largest gradient nan"),
                       ValueError);
  // A loss that exists only near the beginning.
  p.set(ones({1}, f64));
  Lbfgs other(params, {.evaluations = 4});
  other.step([&] {
    const double x = p.value().item();
    return std::pair(x < 0.9 ? not_a_number : x,
                     gradient_of(params, p, {x < 0.9 ? not_a_number : 1}));
  });
  CHECK(std::isfinite(p.value().item()));
  const Params stranger(0, f64);
  const Param q = create(stranger, "q", {1});
  CHECK_THROWS_WITH_AS(other.step([&] { return std::pair(1.0, gradient_of(stranger, q, {1})); }),
                       doctest::Contains("lbfgs: these gradients are of another store or part"),
                       ValueError);
}

TEST_CASE("a restored L-BFGS goes on with the bits of the one that never stopped") {
  const nn::NamedTensors trace = golden().part("lbfgs.");
  const Params straight = parameters(trace), stopped = parameters(trace);
  const auto evaluate = [](const Params& params) {
    return [&params] {
      Tape tape;
      const Tensor loss = sum(square(params["u"])) + sum(exp(params["w"])) + mean(params["b"]);
      return std::pair(loss.item(), tape.gradient(loss, params));
    };
  };
  for (const bool line_search : {true, false}) {
    const LbfgsOptions options{.learning_rate = 0.5, .iterations = 2, .line_search = line_search};
    Lbfgs first(straight, options), second(stopped, options);
    for (int call = 0; call < 4; ++call) {
      first.step(evaluate(straight));
      Lbfgs resumed(stopped, options);
      resumed.restore(second.state());
      resumed.step(evaluate(stopped));
      second = std::move(resumed);
      check_same_bits(straight, stopped);
    }
    nn::NamedTensors damaged = second.state();
    damaged.tensors["lbfgs.step"] = zeros({0}, f64);
    CHECK_THROWS_AS(second.restore(damaged), ValueError);
  }
}

TEST_CASE("L-BFGS without a search says that a loss is not finite where a step led to it") {
  const Params params(0, f64);
  const Param p = create(params, "p", {1});
  Lbfgs lbfgs(params, {.learning_rate = 1e3, .line_search = false});
  CHECK_THROWS_WITH_AS(lbfgs.step([&] {
    const double x = p.value().item();
    return std::pair(x < -500 ? infinity : x * x, gradient_of(params, p, {2 * x}));
  }),
                       doctest::Contains("lbfgs: the loss is inf and the largest gradient 1998; "
                                         "both have to be finite: choose a smaller learning rate"),
                       ValueError);
  CHECK(p.value().item() == -999);
}
