// What gates cost: the weights of a layer and the time of a training step, beside those of a
// vanilla RNN of the same size. The cells take turns, so that a busy machine slows all of them, and
// the medians count.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>

#include <reel/reel.h>

#include "support/program.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  Index hidden = 256, batch = 32, steps = 64, rounds = 21, seed = 1;
};

struct Cell {
  Index weights;
  std::function<void()> train;  // one step
  std::vector<double> times = {};
};

template <class L>
Cell cell(const Settings& s) {
  const auto params = std::make_shared<Params>(static_cast<std::uint64_t>(s.seed));
  const auto layer = std::make_shared<L>(*params, s.hidden, s.hidden);
  const Tensor x = Rng(static_cast<std::uint64_t>(s.seed), 1).normal({s.steps, s.batch, s.hidden});
  return {params->count(), [=] {
            Tape tape;
            tape.gradient(mean(square((*layer)(x).y)), *params);
          }};
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

void run(const Settings& s) {
  std::map<std::string, Cell> cells{{"RNN", cell<nn::Rnn>(s)},
                                    {"GRU", cell<nn::Gru>(s)},
                                    {"LSTM", cell<nn::Lstm>(s)},
                                    {"minGRU", cell<nn::MinGru>(s)}};
  for (Index round = -2; round < s.rounds; ++round)  // the first ones are to warm up
    for (auto& [name, cell] : cells) {
      const auto start = std::chrono::steady_clock::now();
      cell.train();
      const std::chrono::duration<double, std::milli> time =
          std::chrono::steady_clock::now() - start;
      if (round >= 0) cell.times.push_back(time.count());
    }
  const Cell& rnn = cells.at("RNN");
  for (const auto& [name, cell] : cells) {
    fmt::print("{:<8}{:>12} weights{:>10.3f} ms a step\n", name, cell.weights, median(cell.times));
    if (name == "RNN") continue;
    print_result(fmt::format("weights of {}, times those of the RNN", name),
                 static_cast<double>(cell.weights) / static_cast<double>(rnn.weights),
                 "GRU 3, LSTM 4 by their gates");
    print_result(fmt::format("time of {}, times that of the RNN", name),
                 median(cell.times) / median(rnn.times), "the same by their products");
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("cell_costs", "Compares the weights and the speed of recurrent layers.");
  program.option("--hidden", s.hidden, "units, and inputs").fast(32);
  program.option("--batch", s.batch, "sequences of a step");
  program.option("--steps", s.steps, "steps of a sequence");
  program.option("--rounds", s.rounds, "training steps of each layer");
  program.option("--seed", s.seed, "of initial values and data", 0);
  return program.run(argc, argv, [&] { run(s); });
}
