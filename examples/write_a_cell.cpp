// Cells of a program's own at the speed of the library's: each is the function of one unit, from
// which kernels, gradients and a specification follow. docs/add_a_cell.md explains it.
#include <chrono>
#include <cmath>
#include <iostream>
#include <string>

#include <reel/nn/cells/unit_cell.h>
#include <reel/reel.h>

#include "support/program.h"

using namespace reel;
using reel::examples::Program;

namespace {

// [peephole]
// An LSTM whose gates see the cell state (Gers and Schmidhuber, 2000).
struct PeepholeLstm {
  static constexpr const char* name = "peephole_lstm";
  static constexpr kernels::CellLayout layout{.sums = 4, .states = 2, .weights = 3};

  static auto unit(const auto& sums, const auto& before, const auto& weights) {
    const auto& [i_sum, f_sum, g_sum, o_sum] = sums;
    const auto& [h, c] = before;
    const auto& [p_i, p_f, p_o] = weights;
    const auto i = sigmoid(i_sum + p_i * c);
    const auto f = sigmoid(f_sum + p_f * c);
    const auto c_next = f * c + i * tanh(g_sum);
    return std::tuple(sigmoid(o_sum + p_o * c_next) * tanh(c_next), c_next);
  }
};
// [/peephole]

// [minimal]
// The minimal gated unit (Zhou et al., 2016): one gate, which also acts on h before the product.
struct MinimalGatedUnit {
  static constexpr const char* name = "minimal_gated_unit";
  static constexpr kernels::CellLayout layout{
      .sums = 2, .states = 1, .recurrent = {0, 1}, .second = {1, 1}};

  static auto operand(const auto& sums, const auto& before) {
    return sigmoid(std::get<0>(sums)) * std::get<0>(before);
  }
  static auto unit(const auto& sums, const auto& before) {
    const auto& h = std::get<0>(before);
    const auto f = sigmoid(std::get<0>(sums));
    return std::tuple((1 - f) * h + f * tanh(std::get<1>(sums)));
  }
};
// [/minimal]

// [layers]
using Peephole = nn::Recurrent<nn::UnitCell<PeepholeLstm>>;
using Minimal = nn::Stacked<nn::Recurrent<nn::UnitCell<MinimalGatedUnit>>>;
// [/layers]

// Gradients against differences, to second order.
template <class L>
void check_gradients_of(const char* name) {
  const Params params(1, f64);
  const L layer(params, 2, 3);
  const auto loss = [&](std::span<const Tensor> in) {
    return mean(square(layer(in[0], {.lengths = tensor({2}, {4, 2}, i32)}).y));
  };
  const GradientReport report =
      check_gradients(loss, params, {{"x", Rng(2).normal({4, 2, 2}, 0, 1, f64)}}, {.order = 2});
  if (!report.ok) throw ValueError(std::string(name) + ": wrong gradients\n" + report.str());
  std::cout << name << ": gradients agree with differences\n";
}

// The task: add the two numbers of a sequence that are marked.
template <class L>
void train(const char* name) {
  const Params params(3);
  const L layer(params / "rnn", 2, 64);
  const nn::Linear head(params / "head", 64, 1);
  optim::Adam adam(params, {.learning_rate = 5e-3});
  Rng rng(4);
  double recent = 1;
  for (int step = 0; step < 1000; ++step) {
    constexpr Index steps = 12, rows = 32;
    Tensor x = zeros({steps, rows, 2}), target = zeros({rows, 1});
    for (Index row = 0; row < rows; ++row) {
      const Index first = static_cast<Index>(rng.uniform() * 6), second = 6 + first % 6;
      for (Index t = 0; t < steps; ++t) {
        const bool marked = t == first || t == second;
        const auto number = static_cast<float>(rng.uniform());
        x.edit<float>()[static_cast<std::size_t>((t * rows + row) * 2)] = number;
        x.edit<float>()[static_cast<std::size_t>((t * rows + row) * 2 + 1)] = marked ? 1 : 0;
        if (marked) target.edit<float>()[static_cast<std::size_t>(row)] += number;
      }
    }
    Tape tape;
    const Tensor y = layer(x).y;
    const Tensor loss = mse(head(select(y, 0, steps - 1)), target);
    adam.step(tape.gradient(loss, params));
    recent = 0.95 * recent + 0.05 * loss.item();
  }
  std::cout << name << ": mean squared error " << recent << ", 0.17 without looking\n";
  if (!(recent < 0.1)) throw ValueError(std::string(name) + " did not learn the task");
}

// Training passes over a sequence, in multiplications of its products per nanosecond.
template <class L>
double rate(Index blocks) {
  constexpr Index steps = 32, rows = 32, units = 256;
  const Params params(5);
  const L layer(params, units, units);
  const Tensor x = Rng(6).normal({steps, rows, units});
  double best = 0;
  for (int run = 0; run < 8; ++run) {
    const auto start = std::chrono::steady_clock::now();
    Tape tape;
    tape.gradient(sum(layer(x).y), params);
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
    best = std::max(best,
                    static_cast<double>(blocks * 2 * units * units * steps * rows) / time.count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  Program program("write_a_cell",
                  "Checks the gradients of two cells of its own, trains both and measures them.");
  return program.run(argc, argv, [] {
    check_gradients_of<Peephole>("peephole LSTM");
    check_gradients_of<Minimal>("minimal gated unit");
    train<Peephole>("peephole LSTM");
    train<nn::Recurrent<nn::UnitCell<MinimalGatedUnit>>>("minimal gated unit");
    std::cout << "speed per multiplication, with the library's LSTM as 1: peephole LSTM "
              << rate<Peephole>(4) / rate<nn::Lstm>(4) << ", minimal gated unit "
              << rate<nn::Recurrent<nn::UnitCell<MinimalGatedUnit>>>(2) / rate<nn::Lstm>(4) << '\n';
  });
}
