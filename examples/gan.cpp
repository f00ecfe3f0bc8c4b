// A generative adversarial network of sequences: a generator makes sines from noise, and a critic
// tells them from real ones. Both are LSTMs. It is a Wasserstein GAN with a gradient penalty
// (Gulrajani et al., 2017), a loss of the critic's gradient with respect to its input, so that its
// own gradient is a gradient of a gradient through a fused LSTM.
#include <fmt/format.h>

#include <numbers>

#include <reel/reel.h>

#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string save;
  Index length = 16, noise = 4, units = 24, batch = 32, critic_steps = 5, steps = 100, epochs = 10,
        seed = 1;
  double learning_rate = 3e-3, penalty = 10, factor = 3;
};

// Sines of random phase, with one and a half to two and a half periods: [T, B, 1].
Tensor real(Index length, Index rows, Rng& rng) {
  const Tensor periods = rng.uniform({1, rows, 1}, 1.5, 2.5), phase = rng.uniform({rows, 1}, 0, 1);
  const Tensor time = reshape(arange(length).to(f32), {length, 1, 1}) / length;
  return sin(2 * std::numbers::pi * (periods * time + phase));
}

struct Generator {
  Generator(const Params& params, const Settings& s)
      : rnn(params / "rnn", s.noise, s.units), head(params / "head", s.units, 1), settings(s) {}

  // The noise of a sequence is the input of each of its steps.
  Tensor operator()(Index rows, Rng& rng) const {
    const Tensor noise = rng.normal({rows, settings.noise});
    return head(rnn(broadcast_to(noise, {settings.length, rows, settings.noise})).y);
  }

  nn::Lstm rnn;
  nn::Linear head;
  const Settings& settings;
};

struct Critic {
  Critic(const Params& params, Index units)
      : rnn(params / "rnn", 1, units), head(params / "head", units, 1) {}

  Tensor operator()(const Tensor& x) const { return head(mean(rnn(x).y, 0)); }

  // (|dD/dx| - 1)² of each sequence x, the mean; a tape is current.
  Tensor penalty(const Tensor& x) const {
    Tape& tape = *Tape::current();
    const Tensor at = tape.watch(x);
    const Tensor slope = tape.gradient(sum((*this)(at)), {at}, {.create_graph = true})[0];
    return mean(square(norm(slope, {0, 2}) - 1));
  }

  nn::Lstm rnn;
  nn::Linear head;
};

// The gradients of the penalty against differences, of a small critic.
void check() {
  const Params params(3, f64);
  const Critic critic(params, 3);
  const Tensor x = Rng(4).normal({4, 2, 1}, 0, 1, f64);
  const GradientReport report =
      check_gradients([&] { return critic.penalty(x); }, params, {.order = 2});
  if (!report.ok) throw ValueError("the gradient of the penalty is wrong:\n" + report.str());
  fmt::print("the gradients of the penalty agree with differences\n");
}

// The mean of x_s x_t over sequences, for all steps s and t: [T, T]. It has their spectrum, and
// shows whether all phases occur.
Tensor moments(const Tensor& x) {
  const Tensor columns = squeeze(x, 2);
  return matmul(columns, columns, false, true) / columns.size(1);
}

void train(const Settings& s, const std::string& settings) {
  check();
  const Params params(static_cast<std::uint64_t>(s.seed));
  const Generator generator(params / "generator", s);
  const Critic critic(params / "critic", s.units);
  optim::Adam adam(params, {.learning_rate = s.learning_rate, .beta1 = 0.5, .beta2 = 0.9});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1), test_rng(12345);
  const Tensor wanted = moments(real(s.length, 2000, test_rng));
  const auto distance = [&](const Tensor& x) {
    return (norm(moments(x) - wanted) / norm(wanted)).item();
  };
  const auto generated = [&] {
    Rng noise(54321);
    return distance(generator(2000, noise));
  };
  const double before = generated(), least = distance(real(s.length, 2000, test_rng));

  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    for (Index step = 0; step < s.steps; ++step) {
      double gap = 0;  // the critic's estimate of the Wasserstein distance
      for (Index i = 0; i < s.critic_steps; ++i) {
        const Tensor x = real(s.length, s.batch, rng), made = generator(s.batch, rng);
        const Tensor between = lerp(x, made, rng.uniform({s.batch, 1}, 0, 1));
        Tape tape;
        const Tensor difference = mean(critic(x)) - mean(critic(made));
        const Tensor loss = s.penalty * critic.penalty(between) - difference;
        adam.step(tape.gradient(loss, params / "critic"));
        gap = difference.item();
      }
      Tape tape;
      const Tensor loss = -mean(critic(generator(s.batch, rng)));
      adam.step(tape.gradient(loss, params / "generator"));
      training.step(step, s.steps, gap);
    }
    const double score = generated();
    training.end_epoch(score, fmt::format("distance of moments {:.4f}", score));
  }
  print_result("distance of the second moments of real and generated sequences", training.best(),
               fmt::format("{:.4g} before training, {:.4g} of other real ones", before, least));
  if (!(training.best() * s.factor <= before))
    throw ValueError(fmt::format("that is not a factor of {} below the start", s.factor));
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("gan", "Generates sines, against a critic with a gradient penalty.");
  program.option("--length", s.length, "steps of a sequence", 8);
  program.option("--noise", s.noise, "numbers that a sequence is made of");
  program.option("--units", s.units, "of both LSTMs");
  program.option("--batch", s.batch, "sequences of a step");
  program.option("--critic-steps", s.critic_steps, "steps of the critic for one of the generator");
  program.option("--penalty", s.penalty, "weight of the gradient penalty");
  program.option("--steps", s.steps, "steps of an epoch");
  program.option("--epochs", s.epochs, "epochs").fast(6);
  program.option("--learning-rate", s.learning_rate, "of Adam");
  program.option("--factor", s.factor, "by which the distance has to fall").fast(2);
  program.option("--seed", s.seed, "of initial values and data", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
  return program.run(argc, argv, [&] { train(s, program.settings()); });
}
