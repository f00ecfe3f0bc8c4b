// A language model of words: the probability of each word of a text given all words before it,
// with the state carried from window to window through the whole text.
#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include <reel/reel.h>

#include "support/layers.h"
#include "support/program.h"
#include "support/text_parts.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string train, valid, test, cell = "lstm", optimizer = "adam", save;
  bool tied = false;
  Index layers = 1, hidden = 200, batch = 20, steps = 35, epochs = 10, seed = 1;
  Index words = 0, halve_after = 4;
  double dropout = 0.3, bound = 0.1, learning_rate = 2e-3, clip = 5;
};

using Tokens = std::vector<std::int32_t>;

template <class L>
struct Model {
  using State = typename nn::Stacked<L>::State;

  Model(const Params& p, const Settings& s, Index words)
      : embed(p / "embed", words, s.hidden),
        rnn(p / "rnn", s.hidden, s.hidden,
            {.layers = static_cast<int>(s.layers), .dropout = s.dropout}),
        head(s.tied ? nn::Linear(p / "head", embed) : nn::Linear(p / "head", s.hidden, words)),
        dropout(s.dropout) {}

  // The sum of the losses of a window, whose state is replaced by the one after it.
  Tensor operator()(const datasets::Window& window, State& state, const nn::Mode& mode) const {
    const auto [y, next] = rnn(dropout(embed(window.inputs), mode), state, mode);
    state = detach(next);
    return head.cross_entropy(dropout(y, mode), window.targets, {.reduction = LossReduction::sum});
  }

  nn::Embedding embed;
  nn::Stacked<L> rnn;
  nn::Linear head;
  nn::Dropout dropout;
};

// Over a whole text but its first word, as one stream.
template <class L>
double perplexity(const Model<L>& model, const Tokens& tokens) {
  typename Model<L>::State state;
  double nats = 0;
  for (const auto& window : datasets::Windows(tokens, 1, 500, datasets::LastWindow::keep))
    nats += model(window, state, nn::Eval{}).item();
  return datasets::perplexity(nats / static_cast<double>(tokens.size() - 1));
}

template <class L>
void run(const Settings& s, const std::string& settings) {
  const TextParts texts(s.train, s.valid, s.test);
  const datasets::WordVocabulary vocabulary(texts.train, {.max_size = s.words});
  const Tokens train = vocabulary.encode(texts.train), valid = vocabulary.encode(texts.valid),
               test = vocabulary.encode(texts.test);
  std::cout << fmt::format("{} words, of {} different ones; {} to validate and {} to test\n",
                           train.size(), vocabulary.size(), valid.size(), test.size());

  const Params params(static_cast<std::uint64_t>(s.seed));
  const Model<L> model(params, s, vocabulary.size());
  nn::initialize(params, {{"*", nn::init::uniform(s.bound)}});
  const auto optimizer = optim::make_optimizer(s.optimizer, params, s.learning_rate);
  Rng rng(static_cast<std::uint64_t>(s.seed), 1);
  const optim::ExponentialDecay schedule{s.learning_rate, 0.5, static_cast<int>(s.halve_after)};
  const datasets::Windows windows(train, s.batch, s.steps, datasets::LastWindow::keep);

  Training training(params, *optimizer, rng,
                    {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    optimizer->set_learning_rate(schedule.at(training.epoch()));
    typename Model<L>::State state;
    for (Index step = 0; const auto& window : windows) {
      const auto words = static_cast<double>(window.inputs.size());
      Tape tape;
      const Tensor sum = model(window, state, nn::Train{rng});
      // As Zaremba et al.: a sum over the steps and a mean over the rows, which counts for
      // clipping.
      Gradients gradients = tape.gradient(sum / static_cast<double>(s.batch), params);
      optim::clip_by_norm(gradients, s.clip);
      optimizer->step(gradients);
      training.step(step++, windows.count(), sum.item() / words, words);
    }
    const double result = perplexity(model, valid);
    training.end_epoch(result, fmt::format("valid {:.2f}", result));
  }
  training.load_best();
  print_result("validation perplexity", training.best(),
               "120.7 of the small model of Zaremba et al., 2014, on the Penn Treebank");
  print_result("test perplexity", perplexity(model, test), "there 114.5");
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("word_lm", "Trains a language model of words.");
  program.recipes({"zaremba-small"});
  program.option("--train", s.train, "text to learn from, words between spaces").required();
  program.option("--valid", s.valid,
                 "text that chooses the epoch; otherwise the last but one tenth");
  program.option("--test", s.test, "text to test on; otherwise the last tenth of --train");
  program.option("--words", s.words, "most words of the vocabulary; 0 for any number", 0);
  program.option("--cell", s.cell, "recurrent layer", layer_names);
  program.option("--layers", s.layers, "layers").in("zaremba-small", 2);
  program.option("--hidden", s.hidden, "units of a layer, and size of a word's vector").fast(50);
  program.flag("--tied", s.tied, "one table for the words read and predicted");
  program.option("--dropout", s.dropout, "dropout rate", 0, 0.99).in("zaremba-small", 0.0);
  program.option("--init", s.bound, "bound of all initial values, which are uniform");
  program.option("--batch", s.batch, "streams side by side");
  program.option("--steps", s.steps, "steps of a window").in("zaremba-small", 20);
  program.option("--epochs", s.epochs, "passes over the text").in("zaremba-small", 13).fast(1);
  program.option("--optimizer", s.optimizer, "of the parameters", {"adam", "sgd"})
      .in("zaremba-small", "sgd");
  program.option("--learning-rate", s.learning_rate, "at first").in("zaremba-small", 1.0);
  program.option("--halve-after", s.halve_after, "epochs before the rate is halved each epoch");
  program.option("--clip", s.clip, "largest norm of the gradient");
  program.option("--seed", s.seed, "of initial values and dropout", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
  return program.run(argc, argv, [&] {
    with_layer(s.cell,
               [&](auto layer) { run<typename decltype(layer)::type>(s, program.settings()); });
  });
}
