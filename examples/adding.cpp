// The adding problem (Hochreiter and Schmidhuber, 1997): of a long sequence of numbers two are
// marked, one in each half, and the network is to give their sum. What it needs of the first half
// has to survive hundreds of steps, and so has its gradient.
#include <fmt/format.h>

#include <reel/reel.h>

#include "support/layers.h"
#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string cell = "gru", save;
  Index length = 200, hidden = 64, batch = 50, steps = 500, epochs = 10, seed = 1;
  double learning_rate = 2e-3, forget_bias = 1, clip = 1;
};

// Sequences of pairs (number, mark), and the sums of the marked numbers.
struct Batch {
  Tensor x;        // [T, B, 2]
  Tensor targets;  // [B, 1]
};

Batch draw(Index length, Index rows, Rng& rng) {
  const Tensor numbers = rng.uniform({length, rows, 1}, 0, 1);
  const auto marks_in = [&](Index begin, Index end) {
    Tensor at({rows}, i32);
    for (std::int32_t& t : at.edit<std::int32_t>())
      t = static_cast<std::int32_t>(begin + rng.integer(end - begin));
    return expand(transpose(one_hot(at, length), 0, 1), 2);
  };
  const Tensor marks = marks_in(0, length / 2) + marks_in(length / 2, length);
  return {concat({numbers, marks}, 2), sum(numbers * marks, 0)};
}

template <class L>
struct Model {
  Model(const Params& params, const Settings& s, const typename L::Options& options)
      : rnn(params / "rnn", 2, s.hidden, options), head(params / "head", s.hidden, 1) {}

  Tensor operator()(const Tensor& x) const { return head(rnn(x).state.h); }

  L rnn;
  nn::Linear head;
};

template <class L>
void train(const Settings& s, const std::string& settings) {
  const Params params(static_cast<std::uint64_t>(s.seed));
  const Model<L> model(params, s, with_forget_bias<L>(s.forget_bias));
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1), test_rng(12345);
  const Batch test = draw(s.length, 1000, test_rng);

  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    for (Index step = 0; step < s.steps; ++step) {
      const Batch batch = draw(s.length, s.batch, rng);
      Tape tape;
      const Tensor loss = mse(model(batch.x), batch.targets);
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, s.clip);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const double error = mse(model(test.x), test.targets).item();
    training.end_epoch(error, fmt::format("test {:.5f}", error));
  }
  print_result(fmt::format("squared error of a {} over {} steps", s.cell, s.length),
               training.best(), "1/6 = 0.167 without memory");
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("adding", "Adds the two marked numbers of a long sequence.");
  program.option("--cell", s.cell, "recurrent layer", layer_names);
  program.option("--length", s.length, "steps of a sequence", 2).fast(20);
  program.option("--hidden", s.hidden, "units");
  program.option("--forget-bias", s.forget_bias, "initial bias of the forget gate of an lstm", -10,
                 10);
  program.option("--batch", s.batch, "sequences of a step");
  program.option("--steps", s.steps, "steps of an epoch").fast(200);
  program.option("--clip", s.clip, "largest norm of the gradient");
  add_training_options(program, s, {.epochs = 3, .learning_rate = 1e-2});
  return program.run(argc, argv, [&] {
    with_layer(s.cell,
               [&](auto layer) { train<typename decltype(layer)::type>(s, program.settings()); });
  });
}
