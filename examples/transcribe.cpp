// From a signal to its symbols, without knowing when each of them sounds: connectionist temporal
// classification (Graves et al., 2006). A signal has more steps than symbols, and how many steps
// belong to a symbol is different each time.
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include <reel/reel.h>

#include "support/layers.h"
#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string cell = "lstm", save;
  Index symbols = 10, longest = 8, hidden = 64, batch = 32, steps = 100, epochs = 15, beams = 8,
        seed = 1;
  double noise = 0.5, learning_rate = 3e-3;
};

constexpr Index features = 8;
constexpr std::int32_t blank = 0;  // the symbols are 1, 2 ...

// Signals [T, B, features] of different lengths, and the symbols that are in them.
struct Batch {
  datasets::Padded signals, symbols;
  std::vector<std::vector<std::int32_t>> texts;
};

// Each symbol has a chord of its own, a pattern over the features, which swells and fades in 3 to 8
// steps, softly or loudly, after a rest of 0 to 3; noise is over everything.
class Voice {
 public:
  explicit Voice(const Settings& s) : settings_(s), chords_(Rng(7).normal({s.symbols, features})) {}

  Batch draw(Index count, Rng& rng) const {
    Batch batch;
    std::vector<Tensor> signals;
    for (Index i = 0; i < count; ++i) {
      auto& text = batch.texts.emplace_back();
      std::vector<float> signal;
      for (Index n = 1 + rng.integer(settings_.longest); n > 0; --n) {
        text.push_back(static_cast<std::int32_t>(1 + rng.integer(settings_.symbols)));
        // Between two equal symbols there is a rest, or they could not be told from one.
        const bool repeats = text.size() > 1 && text.back() == text[text.size() - 2];
        add(signal, text.back() - 1, repeats + rng.integer(4), 3 + rng.integer(6), rng);
      }
      const Index steps = std::ssize(signal) / features;
      signals.push_back(tensor({steps, features}, std::span<const float>(signal)) +
                        rng.normal({steps, features}, 0, settings_.noise));
    }
    batch.signals = datasets::pad(signals);
    batch.symbols = datasets::pad(batch.texts, blank);
    return batch;
  }

 private:
  void add(std::vector<float>& signal, Index symbol, Index rest, Index length, Rng& rng) const {
    signal.insert(signal.end(), static_cast<std::size_t>(rest * features), 0.0F);
    const double loudness = 0.7 + 0.6 * rng.uniform();
    for (Index t = 0; t < length; ++t) {
      const double phase = (static_cast<double>(t) + 0.5) / static_cast<double>(length);
      for (Index f = 0; f < features; ++f)
        signal.push_back(static_cast<float>(loudness * std::sin(std::numbers::pi * phase) * 2 *
                                            chords_.at({symbol, f})));
    }
  }

  Settings settings_;
  Tensor chords_;
};

template <class L>
void run(const Settings& s, const std::string& settings) {
  const Params params(static_cast<std::uint64_t>(s.seed));
  const nn::Bidirectional<L> rnn(params / "rnn", features, s.hidden);
  const nn::Linear head(params / "head", 2 * s.hidden, s.symbols + 1);
  const auto logits = [&](const Batch& batch) {
    return head(rnn(batch.signals.x, {.lengths = batch.signals.lengths}).y);
  };
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1), test_rng(12345);
  const Voice voice(s);
  const Batch test = voice.draw(500, test_rng);
  const auto error_rate = [&](const auto& found) {  // in %
    Index wrong = 0, all = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      wrong += edit_distance(test.texts[i], found[i].labels);
      all += std::ssize(test.texts[i]);
    }
    return 100 * static_cast<double>(wrong) / static_cast<double>(all);
  };

  const optim::CosineDecay schedule{.learning_rate = s.learning_rate, .length = s.epochs};
  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    adam.set_learning_rate(schedule.at(training.epoch()));
    for (Index step = 0; step < s.steps; ++step) {
      const Batch batch = voice.draw(s.batch, rng);
      Tape tape;
      const Tensor loss = ctc_loss(logits(batch), batch.symbols.x,
                                   {.lengths = batch.signals.lengths,
                                    .target_lengths = batch.symbols.lengths,
                                    .blank = blank});
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, 5);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const double error = error_rate(nn::ctc_greedy(logits(test), test.signals.lengths, blank));
    training.end_epoch(error, fmt::format("label errors {:.2f} %", error));
  }
  training.load_best();
  std::vector<nn::CtcSequence> best;
  for (const auto& sequences :
       nn::ctc_beam(logits(test), test.signals.lengths, {.beams = s.beams, .blank = blank}))
    best.push_back(sequences.front());
  print_result(fmt::format("% label errors of a {}, the best path", s.cell), training.best(),
               "generated signals, so nothing was published");
  print_result(fmt::format("% label errors of a {}, the best of {} beams", s.cell, s.beams),
               error_rate(best), "the same");
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("transcribe",
                  "Finds the symbols of a signal without being told when each sounds.");
  program.option("--cell", s.cell, "recurrent layer", layer_names);
  program.option("--symbols", s.symbols, "different symbols").fast(5);
  program.option("--longest", s.longest, "most symbols of a signal").fast(4);
  program.option("--noise", s.noise, "standard deviation of the noise").fast(0.2);
  program.option("--hidden", s.hidden, "units of each direction");
  program.option("--batch", s.batch, "signals of a step");
  program.option("--steps", s.steps, "steps of an epoch").fast(50);
  program.option("--beams", s.beams, "sequences that the search keeps");
  add_training_options(program, s, {.epochs = 4, .learning_rate = 1e-2});
  return program.run(argc, argv, [&] {
    with_layer(s.cell,
               [&](auto layer) { run<typename decltype(layer)::type>(s, program.settings()); });
  });
}
