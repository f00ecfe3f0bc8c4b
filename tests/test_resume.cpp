// A training of everything that has a state, stopped after a step, saved, and resumed from its file
// by a program that knows nothing else: the weights are those, bit for bit, of a run that was never
// stopped, for any number of threads.
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/datasets/windows.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/dropout.h>
#include <reel/nn/embedding.h>
#include <reel/nn/functional_call.h>
#include <reel/nn/linear.h>
#include <reel/nn/penalties.h>
#include <reel/optim/average.h>
#include <reel/optim/non_monotonic_trigger.h>
#include <reel/optim/optimizers.h>
#include <reel/optim/reduce_on_plateau.h>
#include <reel/optim/run_state.h>
#include <reel/optim/schedule.h>

#include <numeric>

#include "optimizers.h"
#include "temporary_directory.h"

using namespace reel;
using namespace reel::testing;

namespace {

constexpr Index last_step = 50;
constexpr Index symbols = 11, batch = 3, seq_len = 4;

std::vector<std::int32_t> text() {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(batch * seq_len * 7 + 1));
  std::iota(tokens.begin(), tokens.end(), 0);
  for (std::int32_t& token : tokens) token = token * token % static_cast<std::int32_t>(symbols);
  return tokens;
}

const Schedule schedules[] = {
    0.05,
    StepDecay{.learning_rate = 0.05, .factor = 0.5, .every = 20},
    ExponentialDecay{.learning_rate = 0.05, .factor = 0.99, .after = 5},
    Warmup{.steps = 5, .then = CosineDecay{.learning_rate = 0.05, .length = last_step - 5}},
    CosineDecay{.learning_rate = 0.05, .length = 8, .restarts = true, .growth = 2},
    PolynomialDecay{.learning_rate = 0.05, .length = last_step},
    OneCycle{.learning_rate = 0.05, .length = last_step},
};

// Dropout of every kind, penalties, clipping, groups, both averages, a rate that follows a loss.
class Training {
 public:
  Training(const Make& make_optimizer, const Schedule& schedule)
      : schedule_(schedule), optimizer_(make_optimizer(params_)), averages_{params_, params_} {}

  void run_to(Index step) {
    while (step_ < step) train();
  }

  const Params& params() const { return params_; }

  RunState save() const {
    RunState state{.params = nn::from_params(params_),
                   .optimizer = optimizer_->state(),
                   .carried = step_ > 0 ? nn::flatten(state_) : std::vector<Tensor>{},
                   .rng = rng_.state(),
                   .numbers = {{"step", static_cast<double>(step_)}}};
    for (const nn::NamedTensors& part :
         {averages_.ema.state(), averages_.swa.state(), plateau_.state(), trigger_.state()})
      state.more.insert("", part);
    return state;
  }

  void restore(const RunState& saved) {
    nn::load_params(saved.params, params_);
    optimizer_->restore(saved.optimizer);
    if (!saved.carried.empty()) state_ = nn::unflatten(state_, saved.carried);
    rng_ = Rng(saved.rng);
    step_ = static_cast<Index>(saved.number("step"));
    averages_.ema.restore(saved.more);
    averages_.swa.restore(saved.more);
    plateau_.restore(saved.more);
    trigger_.restore(saved.more);
  }

 private:
  void train() {
    const auto [inputs, targets] = windows_[step_ % windows_.count()];
    optimizer_->set_learning_rate(schedule_.at(step_ + 1) * plateau_.factor());
    Tape tape;
    const auto [y, next] = rnn_(embed_(inputs), state_, nn::Train{rng_});
    const Tensor dropped = dropout_(y, nn::Train{rng_});
    const Tensor loss = cross_entropy(head_(dropped), targets) +
                        nn::activation_penalty(dropped, 0.1) + nn::temporal_penalty(y, 0.1);
    Gradients gradients = tape.gradient(loss, params_);
    clip_by_norm(gradients, 0.5);
    clip_adaptive(gradients, 0.5);
    optimizer_->step(gradients);
    state_ = detach(next);
    averages_.ema.update();
    if (trigger_.is_triggered()) averages_.swa.update();
    ++step_;
    if (step_ % 5 == 0) validate();
  }

  void validate() {
    const double loss = nn::functional_call(params_, averages_.ema.values(), [&] {
      const auto [inputs, targets] = windows_[0];
      return cross_entropy(head_(rnn_(embed_(inputs)).y), targets).item();
    });
    plateau_.update(loss);
    trigger_.update(loss);
  }

  const std::vector<std::int32_t> tokens_ = text();
  const datasets::Windows windows_{tokens_, batch, seq_len};
  Params params_{7};
  nn::Embedding embed_{params_ / "embed", symbols, 5};
  nn::Lstm rnn_{params_ / "rnn",
                5,
                8,
                {.dropout = {.input = 0.1,
                             .hidden = 0.1,
                             .update = 0.1,
                             .weights = 0.1,
                             .zoneout_h = 0.1,
                             .zoneout_c = 0.1}}};
  nn::Dropout dropout_{0.2};
  nn::Linear head_{params_ / "head", 8, symbols};
  Schedule schedule_;
  std::unique_ptr<Optimizer> optimizer_;
  struct Averages {
    Ema ema;
    Swa swa;
    Averages(const Params& p, const Params& q) : ema(p, 0.9), swa(q) {}
  } averages_;
  ReduceOnPlateau plateau_{{.factor = 0.9, .patience = 0}};
  NonMonotonicTrigger trigger_{1};
  Rng rng_ = Rng(7).stream("dropout");
  nn::LstmState state_;
  Index step_ = 0;
};

// All that is in a training, as the bytes of its file.
std::string bytes_of(const Training& training) {
  const TemporaryDirectory directory;
  save_run_state(directory / "run", training.save());
  return content_of(directory / "run");
}

const std::vector<Group> groups = {
    {.params = "embed.w", .lazy_rows = true},
    {.params = "rnn.w_hh", .learning_rate_factor = 0.5, .max_norm = 0.2}};

// Every optimizer, with groups of its own; Muon with the vectors frozen.
std::vector<std::pair<std::string, Make>> all_kinds() {
  std::vector<std::pair<std::string, Make>> kinds;
  for (const OptimizerKind& kind : optimizer_kinds()) {
    std::vector<Group> own = groups;
    own.front().lazy_rows = kind.name != "muon" && kind.name != "adafactor";
    if (kind.name == "muon")
      own.push_back(
          {.params = [](const Param& p) { return !nn::matrices_only(p); }, .frozen = true});
    kinds.emplace_back(kind.name, [&kind, own](const Params& params) {
      return kind.make(params, kind.learning_rate, own);
    });
  }
  return kinds;
}

}  // namespace

TEST_CASE("a training resumed at any of its steps has the bits of one that was not stopped") {
  const TemporaryDirectory directory;
  std::size_t which = 0;
  for (const auto& kind : all_kinds()) {
    const std::string& name = kind.first;
    const Make& make_optimizer = kind.second;
    const Schedule& schedule = schedules[which++ % std::size(schedules)];
    CAPTURE(name);
    Training straight(make_optimizer, schedule);
    straight.run_to(last_step);
    const std::string expected = bytes_of(straight);
    Training stopped(make_optimizer, schedule);
    for (Index step = 0; step < last_step; ++step) {
      CAPTURE(step);
      stopped.run_to(step);
      save_run_state(directory / "run", stopped.save());
      Training resumed(make_optimizer, schedule);
      resumed.restore(optim::load_run_state(directory / "run"));
      resumed.run_to(last_step);
      CHECK(bytes_of(resumed) == expected);
    }
  }
}

TEST_CASE("a training has the same bits on any number of threads, and after stops in between") {
  std::size_t which = 0;
  for (const auto& kind : all_kinds()) {
    const std::string& name = kind.first;
    const Make& make_optimizer = kind.second;
    const Schedule& schedule = schedules[which++ % std::size(schedules)];
    CAPTURE(name);
    std::string expected;
    for (const int threads : {1, 2, 3, 4, 8}) {
      const ThreadsScope scope(threads);
      CAPTURE(threads);
      Training training(make_optimizer, schedule);
      training.run_to(last_step / 2);
      Training resumed(make_optimizer, schedule);
      resumed.restore(training.save());
      resumed.run_to(last_step);
      const std::string bytes = bytes_of(resumed);
      if (expected.empty()) expected = bytes;
      CHECK(bytes == expected);
    }
  }
}

TEST_CASE("a state that is left out, or is of another training, is found") {
  const Make adam = make<Adam>(AdamOptions{});
  Training training(adam, 0.05);
  training.run_to(12);
  const RunState saved = training.save();
  Training resumed(adam, 0.05);
  RunState other = saved;
  other.more.tensors.erase("plateau.best");
  CHECK_THROWS_AS(resumed.restore(other), ValueError);
  other = saved;
  other.more.tensors.erase("ema.values.head.w");
  CHECK_THROWS_AS(resumed.restore(other), ValueError);
  // The test above can fail: one number less of the state gives other bits.
  const auto finish = [&](const RunState& state) {
    Training again(adam, 0.05);
    again.restore(state);
    again.run_to(last_step);
    return bytes_of(again);
  };
  const std::string expected = finish(saved);
  CHECK(finish(saved) == expected);
  const auto differs = [&](const auto& damage) {
    RunState damaged = saved;
    damage(damaged);
    return finish(damaged) != expected;
  };
  CHECK(differs([](RunState& s) { ++s.rng.position; }));
  CHECK(differs([](RunState& s) { s.carried.clear(); }));
  CHECK(differs([](RunState& s) { s.more.tensors["plateau.factor"] = scalar(0.5, f64); }));
  CHECK(differs([](RunState& s) { s.more.tensors["ema.count"] = scalar(3, f64); }));
}
