// Recurrent layers and a whole training step: GFLOP/s, and the fraction of the peak of fused
// multiply-adds that as many threads reach in the same run. A token of one layer with G gates costs
// 2·G·H·(D+H) operations forward and three times that in training.
#include <reel/reel.h>

#include "rates.h"

#include <string>

namespace {

using namespace reel;

struct Sizes {
  Index hidden;
  int layers;
  Index batch, steps;

  std::string str() const {
    return "H" + std::to_string(hidden) + "_L" + std::to_string(layers) + "_B" +
           std::to_string(batch) + "_T" + std::to_string(steps);
  }
  /// Of a forward pass, with as many features as units.
  double flop(int gates) const {
    return static_cast<double>(2 * gates * hidden * 2 * hidden * layers * batch * steps);
  }
};

template <class L>
void forward(benchmark::State& state, Sizes sizes, int gates, int thread_count) {
  const Params params(1);
  const nn::Stacked<L> layers(params, sizes.hidden, sizes.hidden, {.layers = sizes.layers});
  const Tensor x = Rng(2).normal({sizes.steps, sizes.batch, sizes.hidden});
  set_threads(thread_count);
  bench::report_rate<float>(state, sizes.flop(gates), thread_count);
  for (auto _ : state) benchmark::DoNotOptimize(layers(x));
}

// The input is a parameter too, so that its gradient is part of the work.
template <class L>
void training(benchmark::State& state, Sizes sizes, int gates, int thread_count) {
  const Params params(1);
  const nn::Stacked<L> layers(params, sizes.hidden, sizes.hidden, {.layers = sizes.layers});
  const Param x = params.create("x", {sizes.steps, sizes.batch, sizes.hidden}, nn::init::normal(1));
  const Tensor seed = Rng(3).normal(x.shape());
  set_threads(thread_count);
  bench::report_rate<float>(state, 3 * sizes.flop(gates), thread_count);
  for (auto _ : state) {
    Tape tape;
    benchmark::DoNotOptimize(tape.gradient(layers(x).y, params, {.seed = seed}));
  }
}

// Embedding to Adam, as char_lm trains with its defaults: its layers' operations alone are counted.
template <class L>
void char_lm_step(benchmark::State& state, Sizes sizes, int gates, int thread_count) {
  constexpr Index symbols = 65, embedding = 64;
  const Params params(1);
  const nn::Embedding embed(params / "embed", symbols, embedding);
  const nn::Stacked<L> layers(params / "rnn", embedding, sizes.hidden, {.layers = sizes.layers});
  const nn::Linear head(params / "head", sizes.hidden, symbols);
  optim::Adam adam(params, {.learning_rate = 2e-3});
  std::vector<std::int32_t> tokens;
  Rng rng(2);
  for (Index i = 0; i < 100 * sizes.batch * sizes.steps; ++i)
    tokens.push_back(static_cast<std::int32_t>(rng.integer(symbols)));
  const datasets::Windows windows(tokens, sizes.batch, sizes.steps);
  set_threads(thread_count);
  const double first_layer = static_cast<double>(embedding + sizes.hidden);
  const double others = static_cast<double>((sizes.layers - 1) * 2 * sizes.hidden);
  const double token = static_cast<double>(6 * gates * sizes.hidden) * (first_layer + others);
  bench::report_rate<float>(state, token * static_cast<double>(sizes.batch * sizes.steps),
                            thread_count);

  typename nn::Stacked<L>::State carried;
  Index window = 0;
  for (auto _ : state) {
    const auto [inputs, targets] = windows[window++ % windows.count()];
    Tape tape;
    const auto [y, next] = layers(embed(inputs), carried);
    const Tensor loss = cross_entropy(head(y), targets);
    Gradients gradients = tape.gradient(loss, params);
    optim::clip_by_norm(gradients, 5);
    adam.step(gradients);
    carried = detach(next);
  }
  state.SetItemsProcessed(state.iterations() * sizes.batch * sizes.steps);
}

using Body = void (*)(benchmark::State&, Sizes, int, int);

void add(const std::string& name, Body body, Sizes sizes, int gates) {
  for (int count = 1; count <= threads(); count *= 2)
    benchmark::RegisterBenchmark(
        (name + "/" + sizes.str() + "/threads:" + std::to_string(count)).c_str(),
        [=](benchmark::State& state) { body(state, sizes, gates, count); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<Sizes> shapes{
      {64, 1, 16, 64}, {128, 1, 32, 64}, {256, 2, 64, 64}, {512, 2, 64, 64}};
  for (const Sizes& sizes : shapes) {
    add("rnn/forward", forward<nn::Rnn>, sizes, 1);
    add("gru/forward", forward<nn::Gru>, sizes, 3);
    add("lstm/forward", forward<nn::Lstm>, sizes, 4);
    add("rnn/training", training<nn::Rnn>, sizes, 1);
    add("gru/training", training<nn::Gru>, sizes, 3);
    add("lstm/training", training<nn::Lstm>, sizes, 4);
  }
  for (const Sizes& sizes : {Sizes{128, 2, 50, 50}, Sizes{512, 2, 64, 64}}) {
    add("char_lm/gru", char_lm_step<nn::Gru>, sizes, 3);
    add("char_lm/lstm", char_lm_step<nn::Lstm>, sizes, 4);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
