// The overhead of the tape: ops on eight numbers, where the arithmetic is negligible.
#include <benchmark/benchmark.h>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace {

using namespace reel;

constexpr int chain = 1000;

Tensor tanh_of(const Tensor& x) { return reel::tanh(x); }
Tensor sum_with_itself(const Tensor& x) { return add(x, x); }
Tensor scaled(const Tensor& x) { return mul(x, x); }

template <Tensor (*op)(const Tensor&)>
void plain(benchmark::State& state) {
  const Tensor x = full({8}, 0.5);
  for (auto _ : state) {
    Tensor y = x;
    for (int i = 0; i < chain; ++i) y = op(y);
    benchmark::DoNotOptimize(y);
  }
  state.SetItemsProcessed(state.iterations() * chain);
}

template <Tensor (*op)(const Tensor&)>
void record(benchmark::State& state) {
  const Tensor x = full({8}, 0.5);
  for (auto _ : state) {
    Tape tape;
    Tensor y = tape.watch(x);
    for (int i = 0; i < chain; ++i) y = op(y);
    benchmark::DoNotOptimize(y);
  }
  state.SetItemsProcessed(state.iterations() * chain);
}

template <Tensor (*op)(const Tensor&)>
void record_and_backward(benchmark::State& state) {
  const Tensor x = full({8}, 0.5), seed = ones({8});
  for (auto _ : state) {
    Tape tape;
    const Tensor input = tape.watch(x);
    Tensor y = input;
    for (int i = 0; i < chain; ++i) y = op(y);
    benchmark::DoNotOptimize(tape.gradient(y, {input}, {.seed = seed}));
  }
  state.SetItemsProcessed(state.iterations() * chain);
}

void million_records(benchmark::State& state) {
  const Tensor x = full({8}, 0.5), seed = ones({8});
  for (auto _ : state) {
    Tape tape;
    const Tensor input = tape.watch(x);
    Tensor y = input;
    for (int i = 0; i < 1'000'000; ++i) y = reel::tanh(y);
    benchmark::DoNotOptimize(tape.gradient(y, {input}, {.seed = seed}));
  }
  state.SetItemsProcessed(state.iterations() * 1'000'000);
}

BENCHMARK(plain<tanh_of>);
BENCHMARK(plain<sum_with_itself>);
BENCHMARK(record<tanh_of>);
BENCHMARK(record<sum_with_itself>);
BENCHMARK(record<scaled>);
BENCHMARK(record_and_backward<tanh_of>);
BENCHMARK(record_and_backward<sum_with_itself>);
BENCHMARK(record_and_backward<scaled>);
BENCHMARK(million_records)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
