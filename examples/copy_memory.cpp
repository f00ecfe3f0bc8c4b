// Copying memory (Hochreiter and Schmidhuber, 1997; as in Arjovsky et al., "Unitary evolution
// recurrent neural networks", 2016): symbols, a blank time, a signal to recall, and then the same
// symbols in their order. Everything has to be kept at once, where in adding a sum is enough.
#include <fmt/format.h>

#include <cmath>

#include <reel/reel.h>

#include "support/layers.h"
#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string cell = "gru", save;
  Index blanks = 30, symbols = 8, copied = 10;
  Index hidden = 128, batch = 32, steps = 500, epochs = 30, seed = 1;
  double learning_rate = 3e-3, forget_bias = 1, clip = 1;
};

// For S symbols, of which N are to be copied after T blanks: symbols 1 .. S, blanks 0, the signal
// S + 1, and blanks as long as the copy; the output is blank until then.
struct Batch {
  Tensor x;        // [T + 2 N, B, S + 2]
  Tensor targets;  // i32 [T + 2 N, B]
};

Batch draw(const Settings& s, Index rows, Rng& rng) {
  Tensor copied({s.copied, rows}, i32);
  for (std::int32_t& symbol : copied.edit<std::int32_t>())
    symbol = static_cast<std::int32_t>(1 + rng.integer(s.symbols));
  const auto blank = [&](Index steps) { return zeros({steps, rows}, i32); };
  const Tensor signal = full({1, rows}, static_cast<double>(s.symbols + 1), i32);
  const Tensor x = concat({copied, blank(s.blanks - 1), signal, blank(s.copied)}, 0);
  return {one_hot(x, s.symbols + 2), concat({blank(s.blanks + s.copied), copied}, 0)};
}

template <class L>
struct Model {
  Model(const Params& params, const Settings& s, const typename L::Options& options)
      : rnn(params / "rnn", s.symbols + 2, s.hidden, options),
        head(params / "head", s.hidden, s.symbols + 1) {}

  Tensor operator()(const Tensor& x) const { return head(rnn(x).y); }

  L rnn;
  nn::Linear head;
};

template <class L>
void train(const Settings& s, const std::string& settings) {
  const Params params(static_cast<std::uint64_t>(s.seed));
  const Model<L> model(params, s, with_forget_bias<L>(s.forget_bias));
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1), test_rng(12345);
  const Batch test = draw(s, 500, test_rng);

  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    for (Index step = 0; step < s.steps; ++step) {
      const Batch batch = draw(s, s.batch, rng);
      Tape tape;
      const Tensor loss = cross_entropy(model(batch.x), batch.targets);
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, s.clip);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const double loss = cross_entropy(model(test.x), test.targets).item();
    training.end_epoch(loss, fmt::format("test {:.5f}", loss));
  }
  // Without memory the symbols can only be guessed.
  const auto copied = static_cast<double>(s.copied);
  const double baseline =
      copied * std::log(s.symbols) / static_cast<double>(s.blanks + 2 * s.copied);
  print_result(fmt::format("loss of a {} over {} blanks, as a share of that without memory", s.cell,
                           s.blanks),
               training.best() / baseline, fmt::format("1 = {:.4f} nats without memory", baseline));
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("copy_memory", "Recalls symbols after a blank time.");
  program.option("--cell", s.cell, "recurrent layer", layer_names);
  program.option("--blanks", s.blanks, "steps between the symbols and their copy").fast(5);
  program.option("--symbols", s.symbols, "kinds of symbols", 2).fast(2);
  program.option("--copied", s.copied, "symbols that are copied").fast(3);
  program.option("--hidden", s.hidden, "units").fast(64);
  program.option("--forget-bias", s.forget_bias, "initial bias of the forget gate of an lstm", -10,
                 10);
  program.option("--batch", s.batch, "sequences of a step").fast(32);
  program.option("--steps", s.steps, "steps of an epoch").fast(100);
  program.option("--epochs", s.epochs, "epochs").fast(5);
  program.option("--learning-rate", s.learning_rate, "of Adam").fast(5e-3);
  program.option("--clip", s.clip, "largest norm of the gradient");
  program.option("--seed", s.seed, "of initial values and data", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
  return program.run(argc, argv, [&] {
    with_layer(s.cell,
               [&](auto layer) { train<typename decltype(layer)::type>(s, program.settings()); });
  });
}
