// Matrix products in the shapes of recurrent layers: GFLOP/s, and the fraction of the fused
// multiply-add peak that the same number of threads reaches in the same run.
#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/kernels/matmul.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/precision.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/threads.h>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "rates.h"

namespace {

using namespace reel;
using namespace reel::kernels;

enum class Kind { packed, plain, b_transposed, a_transposed };

struct Product {
  Index m, k, n;
  Kind kind;
};

constexpr const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::packed:
      return "packed";
    case Kind::plain:
      return "A*B";
    case Kind::b_transposed:
      return "A*Bt";
    default:
      return "At*B";
  }
}

template <class T>
void run(benchmark::State& state, Product p, int thread_count, Precision precision) {
  const PrecisionScope scope(precision);
  // From the pool, as tensors are: its large blocks are on huge pages.
  PoolVector<T> a_values(static_cast<std::size_t>(p.m * p.k), T(0.25));
  PoolVector<T> b_values(static_cast<std::size_t>(p.k * p.n), T(0.5));
  PoolVector<T> c(static_cast<std::size_t>(p.m * p.n));
  using View = MatrixView<T>;
  const View a = p.kind == Kind::a_transposed
                     ? View::row_major(a_values.data(), p.k, p.m).transposed()
                     : View::row_major(a_values.data(), p.m, p.k);
  const View b = p.kind == Kind::b_transposed
                     ? View::row_major(b_values.data(), p.n, p.k).transposed()
                     : View::row_major(b_values.data(), p.k, p.n);
  const PackedMatrix<T> packed(b);
  set_threads(thread_count);
  bench::report_rate<T>(
      state, 2 * static_cast<double>(p.m) * static_cast<double>(p.k) * static_cast<double>(p.n),
      thread_count);
  for (auto _ : state) {
    if (p.kind == Kind::packed)
      matmul(a, packed, c.data(), p.n, Write::assign);
    else
      matmul(a, b, c.data(), p.n, Write::assign);
    benchmark::ClobberMemory();
  }
}

template <class T>
void add(const char* type, Product p, int thread_count, Precision precision = Precision::f32) {
  const std::string name = std::string("matmul/") + type + '/' + name_of(p.kind) + '/' +
                           std::to_string(p.m) + 'x' + std::to_string(p.k) + 'x' +
                           std::to_string(p.n) + "/threads:" + std::to_string(thread_count);
  benchmark::RegisterBenchmark(
      name.c_str(), [=](benchmark::State& state) { run<T>(state, p, thread_count, precision); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

// Attention heads: 64 products of [64, 64] in one op.
void run_batch(benchmark::State& state, int thread_count) {
  constexpr Index n = 64;
  const Tensor a = Rng(1).normal({n, n, n}), b = Rng(2).normal({n, n, n});
  set_threads(thread_count);
  bench::report_rate<float>(state, 2.0 * n * n * n * n, thread_count);
  for (auto _ : state) benchmark::DoNotOptimize(matmul(a, b));
}

void add_batch(int thread_count) {
  const std::string name = "matmul/f32/batch/64x64x64x64/threads:" + std::to_string(thread_count);
  benchmark::RegisterBenchmark(
      name.c_str(), [thread_count](benchmark::State& state) { run_batch(state, thread_count); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<Product> steps = {{64, 512, 2048, Kind::packed}, {64, 256, 1024, Kind::packed},
                                      {32, 128, 512, Kind::packed},  {16, 128, 512, Kind::packed},
                                      {1, 512, 2048, Kind::packed},  {1, 512, 2048, Kind::plain},
                                      {64, 64, 64, Kind::plain}};
  const std::vector<Product> layers = {{512, 8192, 2048, Kind::plain},
                                       {8192, 512, 2048, Kind::plain},
                                       {2500, 64, 512, Kind::b_transposed},
                                       {512, 2500, 128, Kind::a_transposed},
                                       {2048, 3200, 512, Kind::a_transposed}};
  for (const Product& p : steps) add<float>("f32", p, 1);
  const int all = reel::threads();
  for (const Product& p : layers)
    for (int count = 1; count <= all; count *= 2) add<float>("f32", p, count);
  for (int count = 1; count <= all; count *= 2) add_batch(count);
  for (const Product& p : {steps[0], steps[1], steps[2], layers[1], layers[4]})
    for (int count = 1; count <= all; count *= 2) add<float>("bf16", p, count, Precision::bf16);
  add<double>("f64", {64, 256, 1024, Kind::packed}, 1);
  add<double>("f64", {8192, 512, 2048, Kind::plain}, 1);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
