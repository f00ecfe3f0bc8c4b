// Classifies whole sequences by the last state or the mean of all. For the parity of bits and the
// product of permutations a state has to be tracked without a single error; for the majority of
// bits a sum is enough; digits of MNIST are read row by row. In training every prefix of a string
// has its class too: with that of the whole string alone (--loss last) there is hardly a gradient
// to begin with. The strings of the tests are unseen, some 4 and 16 times as long.
#include <fmt/format.h>

#include <reel/reel.h>

#include "support/labelled_sequences.h"
#include "support/layers.h"
#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string task = "parity", cell = "gru", pool = "last", loss = "prefixes", save;
  DigitFiles files;
  Index length = 64, hidden = 64, layers = 1, batch = 128, steps = 100, epochs = 8, seed = 1;
  double learning_rate = 3e-3, forget_bias = 1, clip = 1;
};

template <class L>
struct Model {
  Model(const Params& params, const Settings& s, Index inputs, Index classes,
        const typename L::Options& options)
      : rnn(params / "rnn", inputs, s.hidden, {.layers = static_cast<int>(s.layers)}, options),
        head(params / "head", s.hidden, classes),
        mean_pooling(s.pool == "mean") {}

  // Scores of the classes after every step, [T, B, classes].
  Tensor operator()(const Tensor& x) const {
    Tensor y = rnn(x).y;
    if (mean_pooling) y = cumsum(y, 0) / cumsum(ones({x.size(0), 1, 1}), 0);
    return head(y);
  }

  nn::Stacked<L> rnn;
  nn::Linear head;
  bool mean_pooling;
};

struct Score {
  double loss, accuracy;
};

// Of whole sequences.
template <class L>
Score score(const Model<L>& model, const Labelled& batch) {
  const Tensor scores = model(batch.x)[-1], classes = batch.classes[-1];
  const Tensor is_right = equal(argmax(scores, -1), classes);
  return {cross_entropy(scores, classes).item(), mean(is_right.to(f32)).item()};
}

// Throws ValueError unless the files of digits are given for them alone.
LabelledData data_of(const Settings& s) {
  const bool is_digits = s.task == "digits";
  for (const std::string& file :
       {s.files.images, s.files.labels, s.files.test_images, s.files.test_labels})
    if (file.empty() == is_digits)
      throw ValueError(
          "--images, --labels, --test-images and --test-labels belong to --task digits, all four");
  return is_digits ? digits(s.files, s.batch) : strings(s.task, s.length, s.batch);
}

template <class L>
void train(const Settings& s, const std::string& settings) {
  const LabelledData data = data_of(s);
  const Params params(static_cast<std::uint64_t>(s.seed));
  const Model<L> model(params, s, data.valid.x.size(2), data.classes,
                       with_forget_bias<L>(s.forget_bias));
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1);

  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    for (Index step = 0; step < s.steps; ++step) {
      const Labelled batch = data.draw(rng);
      Tape tape;
      const Tensor scores = model(batch.x);
      const Tensor loss = s.loss == "last" ? cross_entropy(scores[-1], batch.classes[-1])
                                           : cross_entropy(scores, batch.classes);
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, s.clip);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const Score valid = score(model, data.valid);
    training.end_epoch(
        valid.loss, fmt::format("valid {:.4f}, {:.1f}% right", valid.loss, 100 * valid.accuracy));
  }
  training.load_best();
  for (const Labelled& test : data.tests)
    print_result(fmt::format("accuracy of a {} in {} over {} steps, percent", s.cell, s.task,
                             test.x.size(0)),
                 100 * score(model, test).accuracy,
                 fmt::format("{:.3g} by guessing", 100 / static_cast<double>(data.classes)));
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("classify", "Classifies sequences by the last state or the mean of all.");
  program.option("--task", s.task, "classes", {"parity", "majority", "permutations", "digits"});
  program.option("--images", s.files.images, "of digits, in the idx format of MNIST");
  program.option("--labels", s.files.labels, "their classes");
  program.option("--test-images", s.files.test_images, "images of the test");
  program.option("--test-labels", s.files.test_labels, "their classes");
  program.option("--cell", s.cell, "recurrent layer", {"rnn", "gru", "lstm", "min_gru"});
  program.option("--pool", s.pool, "what is classified: the last state or the mean",
                 {"last", "mean"});
  program.option("--loss", s.loss, "what is learned: every prefix or the last step",
                 {"prefixes", "last"});
  program.option("--length", s.length, "symbols of a string").fast(16);
  program.option("--hidden", s.hidden, "units");
  program.option("--layers", s.layers, "recurrent layers");
  program.option("--forget-bias", s.forget_bias, "initial bias of the forget gate of an lstm", -10,
                 10);
  program.option("--batch", s.batch, "sequences of a step").fast(32);
  program.option("--steps", s.steps, "steps of an epoch");
  program.option("--epochs", s.epochs, "epochs").fast(5);
  program.option("--learning-rate", s.learning_rate, "of Adam");
  program.option("--clip", s.clip, "largest norm of the gradient");
  program.option("--seed", s.seed, "of initial values and data", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
  const auto train_layer = [&]<class L>(Type<L>) { train<L>(s, program.settings()); };
  return program.run(argc, argv, [&] {
    if (s.cell == "min_gru")
      train_layer(Type<nn::MinGru>());
    else
      with_layer(s.cell, train_layer);
  });
}
