// Single ops at the sizes of a language model: 2500 positions (50 steps of 50 streams), 128
// features or 65 classes, and on all threads beyond the caches: 40,000 rows of 512. Bytes are those
// of the inputs and outputs, each counted once.
#include <benchmark/benchmark.h>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/threads.h>

namespace {

using namespace reel;

constexpr Index positions = 2500, features = 128, classes = 65;

Tensor matrix(Index columns) { return Rng(1).normal({positions, columns}); }
Tensor targets() {
  Tensor t({positions}, i32);
  Rng rng(2);
  for (std::int32_t& target : t.edit<std::int32_t>())
    target = static_cast<std::int32_t>(rng.integer(classes));
  return t;
}

template <class F>
void time(benchmark::State& state, Index numbers, F f) {
  set_threads(1);
  for (auto _ : state) benchmark::DoNotOptimize(f());
  state.SetBytesProcessed(state.iterations() * numbers * 4);
}

template <Tensor (*op)(const Tensor&, Site)>
void unary(benchmark::State& state) {
  const Tensor x = matrix(features);
  time(state, 2 * x.size(), [&] { return op(x, {}); });
}

template <Tensor (*op)(const Operand&, const Operand&, Site)>
void binary(benchmark::State& state) {
  const Tensor x = matrix(features), y = matrix(features);
  time(state, 3 * x.size(), [&] { return op(x, y, {}); });
}

void add_row(benchmark::State& state) {
  const Tensor x = matrix(features), row = Rng(3).normal({features});
  time(state, 2 * x.size(), [&] { return x + row; });
}

void sum_rows(benchmark::State& state) {
  const Tensor x = matrix(features);
  time(state, x.size(), [&] { return sum(x, 0); });
}

void softmax_rows(benchmark::State& state) {
  const Tensor x = matrix(classes);
  time(state, 2 * x.size(), [&] { return softmax(x); });
}

void layer_norm_rows(benchmark::State& state) {
  const Tensor x = matrix(features), gain = ones({features}), bias = zeros({features});
  time(state, 2 * x.size(), [&] { return layer_norm(x, gain, bias); });
}

void gather(benchmark::State& state) {
  const Tensor table = Rng(4).normal({classes, features}), rows = targets();
  time(state, 2 * positions * features, [&] { return gather_rows(table, rows); });
}

void loss_and_gradient(benchmark::State& state) {
  const Tensor logits = matrix(classes), t = targets();
  time(state, 3 * logits.size(), [&] {
    Tape tape;
    const Tensor x = tape.watch(logits);
    return tape.gradient(cross_entropy(x, t), {x});
  });
}

void drop(benchmark::State& state) {
  const Tensor x = matrix(features);
  Rng rng(5);
  time(state, 2 * x.size(), [&] { return dropout(x, 0.5, rng); });
}

void draw_normal(benchmark::State& state) {
  Rng rng(6);
  time(state, positions * features, [&] { return rng.normal({positions, features}); });
}

void power(benchmark::State& state) {
  const Tensor x = exp(matrix(features));
  time(state, 2 * x.size(), [&] { return pow(x, 1.7); });
}

void choose(benchmark::State& state) {
  const Tensor x = matrix(features), y = matrix(features), condition = x > 0;
  time(state, 4 * x.size(), [&] { return where(condition, x, y); });
}

void binary_loss(benchmark::State& state) {
  const Tensor logits = matrix(features), t = sigmoid(logits);
  time(state, 2 * logits.size(), [&] { return bce_with_logits(logits, t); });
}

// Beyond the caches, on this number of threads.
template <class F>
void time_large(benchmark::State& state, F f) {
  const Tensor x = Rng(1).normal({40000, 512});
  set_threads(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(f(x));
  state.SetBytesProcessed(state.iterations() * x.size() * 8);
}
void large_copy(benchmark::State& state) {
  time_large(state, [](const Tensor& x) { return x.copy(); });
}
void large_softmax(benchmark::State& state) {
  time_large(state, [](const Tensor& x) { return softmax(x); });
}
void large_layer_norm(benchmark::State& state) {
  const Tensor gain = ones({512}), bias = zeros({512});
  time_large(state, [&](const Tensor& x) { return layer_norm(x, gain, bias); });
}

constexpr auto unit = benchmark::kMicrosecond;
BENCHMARK(binary<add>)->Unit(unit);
BENCHMARK(binary<mul>)->Unit(unit);
BENCHMARK(unary<reel::exp>)->Unit(unit);
BENCHMARK(unary<reel::log>)->Unit(unit);
BENCHMARK(unary<reel::tanh>)->Unit(unit);
BENCHMARK(unary<sigmoid>)->Unit(unit);
BENCHMARK(unary<relu>)->Unit(unit);
BENCHMARK(add_row)->Unit(unit);
BENCHMARK(sum_rows)->Unit(unit);
BENCHMARK(softmax_rows)->Unit(unit);
BENCHMARK(layer_norm_rows)->Unit(unit);
BENCHMARK(gather)->Unit(unit);
BENCHMARK(loss_and_gradient)->Unit(unit);
BENCHMARK(drop)->Unit(unit);
BENCHMARK(draw_normal)->Unit(unit);
BENCHMARK(unary<softplus>)->Unit(unit);
BENCHMARK(power)->Unit(unit);
BENCHMARK(choose)->Unit(unit);
BENCHMARK(binary_loss)->Unit(unit);
BENCHMARK(large_copy)->Arg(1)->Arg(2)->Unit(unit)->UseRealTime();
BENCHMARK(large_softmax)->Arg(1)->Arg(2)->Unit(unit)->UseRealTime();
BENCHMARK(large_layer_norm)->Arg(1)->Arg(2)->Unit(unit)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
