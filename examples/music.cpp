// Four-part chorales by Bach (Boulanger-Lewandowski et al., 2012): at every step each of 88 keys
// sounds or not, and the next step is to be predicted. All cells get the same number of weights.
// The output begins near the share of keys that sound; otherwise all units would learn that first.
#include <fmt/format.h>

#include <map>

#include <reel/reel.h>

#include "support/layers.h"
#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

constexpr Index keys = 88;

struct Settings {
  std::string data, cell = "lstm", save;
  Index weights = 300000, layers = 1, batch = 4, epochs = 40, seed = 1;
  double input_dropout = 0.1, hidden_dropout = 0.2, output_dropout = 0.3;
  double learning_rate = 0, decay = 0.94, clip = 1;
};

// The LSTM with peepholes and its variants in Greff et al., "LSTM: a search space odyssey", 2015,
// as they are called there; the one without peepholes, NP, is "lstm", and FGR is a cell of its own.
const std::map<std::string, LstmVariant> lstm_variants{{"V", LstmVariant::standard},
                                                       {"CIFG", LstmVariant::coupled},
                                                       {"NIG", LstmVariant::no_input_gate},
                                                       {"NFG", LstmVariant::no_forget_gate},
                                                       {"NOG", LstmVariant::no_output_gate},
                                                       {"NIAF", LstmVariant::no_input_activation},
                                                       {"NOAF", LstmVariant::no_output_activation}};
const std::vector<std::string> cell_names{"rnn", "gru", "lstm", "V",    "CIFG", "NIG",
                                          "NFG", "NOG", "NIAF", "NOAF", "FGR"};

template <class F>
void with_cell(const std::string& name, F&& f) {
  if (name == "FGR") return f(Type<nn::FullGateLstm>());
  if (lstm_variants.contains(name)) return f(Type<nn::Lstm>());
  with_layer(name, f);
}

template <class L>
typename L::Options options_of(const Settings& s) {
  typename L::Options options;
  if constexpr (std::is_same_v<L, nn::Lstm>)
    if (lstm_variants.contains(s.cell)) options = {lstm_variants.at(s.cell), /*peepholes=*/true};
  options.dropout = {.input = s.input_dropout, .hidden = s.hidden_dropout};
  return options;
}

template <class L>
struct Model {
  Model(const Params& params, const Settings& s, Index hidden)
      : rnn(params / "rnn", keys, hidden,
            {.layers = static_cast<int>(s.layers), .dropout = s.output_dropout}, options_of<L>(s)),
        head(params / "head", hidden, keys, {.bias_init = nn::init::constant(-3)}),
        dropout(s.output_dropout) {}

  // The negative log-likelihood of a frame, the sum over keys, but of the first frames of songs.
  Tensor operator()(const datasets::Padded& songs, const nn::Mode& mode) const {
    const Index steps = songs.x.size(0) - 1;
    const Tensor lengths = songs.lengths - 1;
    const Tensor y = rnn(slice(songs.x, 0, 0, steps), mode, {.lengths = lengths}).y;
    return keys * bce_with_logits(head(dropout(y, mode)), slice(songs.x, 0, 1, steps + 1),
                                  datasets::length_mask(lengths, steps));
  }

  nn::Stacked<L> rnn;
  nn::Linear head;
  nn::Dropout dropout;
};

// The largest hidden size of a model that does not exceed the number of weights.
template <class L>
Index hidden_size(const Settings& s) {
  const auto fits = [&](Index hidden) {
    const Params params(0);
    const Model<L> model(params, s, hidden);
    return params.count() <= s.weights;
  };
  Index least = 1, most = 2;
  while (fits(most)) most *= 2;
  while (most - least > 1) (fits((least + most) / 2) ? least : most) = (least + most) / 2;
  return least;
}

template <class L>
void train(const Settings& s, const std::string& settings) {
  const datasets::PianoRolls music = datasets::read_piano_rolls(s.data);
  const Params params(static_cast<std::uint64_t>(s.seed));
  const Index hidden = hidden_size<L>(s);
  const Model<L> model(params, s, hidden);
  optim::Adam adam(params);
  Rng rng(static_cast<std::uint64_t>(s.seed), 1);
  const datasets::BucketedBatches batches(datasets::lengths_of(music.train),
                                          {.batch_size = s.batch, .pool = 4}, rng);
  const double at_first = s.learning_rate > 0 ? s.learning_rate : s.cell == "rnn" ? 1e-3 : 5e-3;
  const optim::ExponentialDecay rate{at_first, s.decay, 1};

  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  fmt::print("{} units, {} weights\n", hidden, params.count());
  while (training.next()) {
    adam.set_learning_rate(rate.at(training.epoch()));
    for (Index step = 0; const auto& batch : batches.epoch(training.epoch())) {
      const datasets::Padded songs = datasets::pad(datasets::pick(music.train, batch));
      Tape tape;
      const Tensor loss = model(songs, nn::Train{rng});
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, s.clip);
      adam.step(gradients);
      training.step(step++, batches.count(), loss.item(), sum(songs.lengths - 1).item());
    }
    const double valid = model(datasets::pad(music.valid), nn::Eval{}).item();
    training.end_epoch(valid, fmt::format("valid {:.3f}", valid));
  }
  training.load_best();
  print_result(fmt::format("test loss of a {} with {} units, nats a frame", s.cell, hidden),
               model(datasets::pad(music.test), nn::Eval{}).item(),
               "LSTM 8.45, GRU 8.43, RNN 8.91: Bai et al., 2018, table 1");
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("music", "Predicts the next step of chorales.");
  program.option("--data", s.data, "chorales: JSON of three lists of songs").required();
  program.option("--cell", s.cell, "recurrent layer; in capitals: LSTMs of Greff et al.",
                 cell_names);
  program.option("--weights", s.weights, "of the model, which sets its size", 1000).fast(30000);
  program.option("--layers", s.layers, "recurrent layers");
  program.option("--input-dropout", s.input_dropout, "of the keys", 0, 0.99);
  program.option("--hidden-dropout", s.hidden_dropout, "of h in the recurrent products", 0, 0.99);
  program.option("--output-dropout", s.output_dropout, "of h above each layer", 0, 0.99);
  program.option("--batch", s.batch, "songs of a step");
  program.option("--epochs", s.epochs, "epochs").fast(3);
  program.option("--learning-rate", s.learning_rate, "of Adam at first; 0: by the cell");
  program.option("--decay", s.decay, "of the learning rate, its factor after an epoch", 0, 1);
  program.option("--clip", s.clip, "largest norm of the gradient");
  program.option("--seed", s.seed, "of initial values, order and dropout", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
  return program.run(argc, argv, [&] {
    with_cell(s.cell, [&]<class L>(Type<L>) { train<L>(s, program.settings()); });
  });
}
