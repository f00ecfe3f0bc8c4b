// Running a model one step at a time, as in generation: time per step for one row on one thread,
// and the bandwidth at which the packed weights are read.
#include <reel/reel.h>

#include <benchmark/benchmark.h>

#include <string>

namespace {

using namespace reel;

void report_bytes(benchmark::State& state, Index weights) {
  state.SetBytesProcessed(state.iterations() * weights * static_cast<Index>(sizeof(float)));
}

// A lower bound for a step: the product of its weights with one vector.
void product(benchmark::State& state, Index features, Index outputs) {
  const Params params(1);
  const nn::Linear linear(params, features, outputs);
  const nn::Stepper step(linear);
  const Tensor x = Rng(2).normal({1, features});
  for (auto _ : state) benchmark::DoNotOptimize(step(x));
  report_bytes(state, features * outputs);
}

// As many features as units.
template <class L, class... Options>
void layer(benchmark::State& state, Index units, Index rows, const Options&... options) {
  const Params params(1);
  const L layer(params, units, units, options...);
  const nn::Stepper step(layer);
  const Tensor x = Rng(2).normal({rows, units});
  typename L::State carried;
  for (auto _ : state) carried = step(x, carried).state;
  benchmark::DoNotOptimize(carried);
  report_bytes(state, layer.cell.w_ih.shape().size() + layer.cell.w_hh.shape().size());
}

// The default model of char_lm: 65 characters, embeddings of 64, two layers.
template <class L>
void character(benchmark::State& state, Index units) {
  constexpr Index symbols = 65;
  const Params params(1);
  const nn::Embedding embed(params / "embed", symbols, 64);
  const nn::Stacked<L> layers(params / "rnn", 64, units);
  const nn::Linear head(params / "head", units, symbols);
  const nn::Stepper step(embed, layers);
  const nn::Stepper predict(head);
  Rng rng(2);
  auto last = step(full({1}, 0, i32));
  for (auto _ : state)
    last = step(full({1}, nn::sample(predict(last.y), {}, rng), i32), last.state);
  state.SetItemsProcessed(state.iterations());
}

template <class F>
void add(const std::string& name, F body) {
  benchmark::RegisterBenchmark(name.c_str(), body)->Unit(benchmark::kMicrosecond);
}

}  // namespace

int main(int argc, char** argv) {
  using State = benchmark::State;
  for (const Shape& w : {Shape{128, 512}, {512, 2048}})
    add("product/" + std::to_string(w[0]) + "x" + std::to_string(w[1]),
        [=](State& state) { product(state, w[0], w[1]); });
  for (const Index units : {128, 256, 512}) {
    const std::string size = "/H" + std::to_string(units);
    add("rnn" + size, [=](State& state) { layer<nn::Rnn>(state, units, 1); });
    add("gru" + size, [=](State& state) { layer<nn::Gru>(state, units, 1); });
    add("gru_before" + size, [=](State& state) {
      layer<nn::Gru>(state, units, 1, nn::GruOptions{.reset = Reset::before});
    });
    add("lstm" + size, [=](State& state) { layer<nn::Lstm>(state, units, 1); });
    add("lstm_B3" + size, [=](State& state) { layer<nn::Lstm>(state, units, 3); });
  }
  add("character/gru_2x128", [](State& state) { character<nn::Gru>(state, 128); });
  add("character/lstm_2x128", [](State& state) { character<nn::Lstm>(state, 128); });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
