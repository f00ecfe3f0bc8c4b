// A network in real time: it learns what an overdriven amplifier does to a plucked string, and then
// runs as an nn::Stream, one sample at a time, as in an audio effect: nothing in a step allocates,
// locks or throws. With --input it reads samples, numbers in text, and writes each output at once.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>

#include <reel/reel.h>

#include "support/amplifier.h"
#include "support/layers.h"
#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string cell = "gru", save, input;
  Index units = 16, window = 256, batch = 16, steps = 100, epochs = 20, seed = 1;
  double learning_rate = 5e-3;
};

template <class L>
struct Model {
  Model(const Params& params, const Settings& s)
      : rnn(params / "rnn", 1, s.units), head(params / "head", s.units, 1) {}
  Tensor operator()(const Tensor& x) const { return head(rnn(x).y); }

  L rnn;
  nn::Linear head;
};

// The error's share of the signal's energy, without the first steps, whose past is unknown.
Tensor loss_of(const Tensor& y, const Tensor& wet) {
  const Index begin = wet.size(0) / 4, end = wet.size(0);
  const Tensor target = slice(wet, 0, begin, end);
  return sum(square(slice(y, 0, begin, end) - target)) / (sum(square(target)) + 1e-6);
}

// A stream whose steps are timed.
class Effect {
 public:
  template <class L>
  explicit Effect(const Model<L>& model) : stream_(model.rnn, model.head) {}

  float operator()(float sample) {
    float y = 0;
    const auto begin = std::chrono::steady_clock::now();
    stream_.step({&sample, 1}, {&y, 1});
    const std::chrono::duration<double, std::micro> passed =
        std::chrono::steady_clock::now() - begin;
    times_.push_back(passed.count());
    return y;
  }

  std::size_t count() const { return times_.size(); }
  std::string times() {
    if (times_.empty()) return "no samples";
    std::ranges::sort(times_);
    return fmt::format("{:.2f} µs a sample, at worst {:.2f} µs; at 48 kHz there are 20.83 µs",
                       times_[times_.size() / 2], times_.back());
  }

 private:
  nn::Stream<float> stream_;
  std::vector<double> times_;
};

template <class L>
void play(const Settings& s) {
  if (s.save.empty()) throw ValueError("--input is for a trained network: name its file by --save");
  const Params params(1);
  const Model<L> model(params, s);
  nn::load_params(best_params_in(s.save), params);
  std::ifstream file(s.input);
  std::istream& samples = s.input == "-" ? std::cin : file;
  if (!samples) throw FileError(s.input + ": cannot read");
  Effect effect(model);
  for (float sample = 0; samples >> sample;) std::cout << effect(sample) << std::endl;
  if (!samples.eof())
    throw ValueError(fmt::format("{}: after {} samples: not a number", s.input, effect.count()));
  std::cerr << effect.times() << '\n';
}

template <class L>
void train(const Settings& s, const std::string& settings) {
  Rng signal(static_cast<std::uint64_t>(s.seed), 2), rng(static_cast<std::uint64_t>(s.seed), 1);
  const Recording known = record(40000, signal), valid = record(4000, signal),
                  test = record(20000, signal);
  const Params params(static_cast<std::uint64_t>(s.seed));
  const Model<L> model(params, s);
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    for (Index step = 0; step < s.steps; ++step) {
      const Recording batch = draw(known, s.window, s.batch, rng);
      Tape tape;
      const Tensor loss = loss_of(model(batch.dry), batch.wet);
      Gradients gradients = tape.gradient(loss, params);
      optim::clip_by_norm(gradients, 1);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const double loss = loss_of(model(expand(valid.dry, 1)), expand(valid.wet, 1)).item();
    training.end_epoch(loss, fmt::format("valid {:.4f}", loss));
  }
  training.load_best();

  Effect effect(model);
  std::vector<float> y;
  for (const float sample : test.dry.values<float>()) y.push_back(effect(sample));
  fmt::print("{}\n", effect.times());
  print_result("error to signal, one sample at a time",
               loss_of(tensor(test.wet.shape(), y), test.wet).item(),
               fmt::format("{:.4g} without an amplifier", loss_of(test.dry, test.wet).item()));
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("stream", "Runs a network in real time, one sample at a time.");
  program.option("--input", s.input, "samples for the network of --save; -: standard input");
  program.option("--cell", s.cell, "recurrent layer", layer_names);
  program.option("--units", s.units, "of the recurrent layer");
  program.option("--window", s.window, "samples that a training step sees", 8);
  program.option("--batch", s.batch, "windows of a step");
  program.option("--steps", s.steps, "steps of an epoch").fast(50);
  add_training_options(program, s, {.epochs = 8, .learning_rate = 1e-2});
  return program.run(argc, argv, [&] {
    with_layer(s.cell, [&]<class L>(Type<L>) {
      s.input.empty() ? train<L>(s, program.settings()) : play<L>(s);
    });
  });
}
