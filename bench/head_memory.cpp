// Memory and CPU time of the head of a model with a large vocabulary and its loss, forward and
// backward pass, with each way to compute them. Every row is measured in its own process:
// head_memory [ROUNDS]
#include <reel/autograd/engine/buffer.h>
#include <reel/reel.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "apart.h"

namespace {

using namespace reel;

constexpr Index rows = 700, features = 200;

using Loss = std::function<Tensor(const Tensor& x, const Tensor& targets)>;
/// Makes a head of so many symbols, and returns its loss.
using MakeHead = std::function<Loss(const Params& params, Index symbols)>;

// Symbols in proportion to 1 / rank.
Tensor zipf_targets(Index symbols) {
  Rng rng(3);
  std::vector<std::int32_t> targets;
  for (Index r = 0; r < rows; ++r) {
    const double rank = std::pow(static_cast<double>(symbols), rng.uniform());
    targets.push_back(static_cast<std::int32_t>(std::min(rank, double(symbols)) - 1));
  }
  return tensor({rows}, targets);
}

struct Figures {
  double pool = 0, resident = 0, ms = 0, parameters = 0;
};

// The memory on top of parameters, x and targets, the peak of five steps, and the median time.
Figures measure(Index symbols, const MakeHead& make) {
  set_threads(1);
  const Params params(1);
  const Loss loss_of = make(params, symbols);
  const Tensor x = Rng(2).normal({rows, features}), targets = zipf_targets(symbols);
  const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  const auto in_use = [] {
    const auto s = pool::statistics();
    return s.held_bytes - s.cached_bytes;
  };
  const double pool_before = mib(in_use()), before = bench::mib_of("VmRSS");
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t begin = std::clock();
    Tape tape;
    const Tensor source = tape.watch(x);
    tape.on_gradient(source, [](const Tensor&) { return Tensor(); });  // as of a layer below
    const Tensor loss = loss_of(source, targets);
    const Gradients gradients = tape.gradient(loss, params);
    times.push_back(1e3 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  std::ranges::sort(times);
  return {mib(pool::statistics().peak_bytes) - pool_before, bench::mib_of("VmHWM") - before,
          times[times.size() / 2], static_cast<double>(params.count()) / 1e6};
}

Loss in_two_ops(const Params& params, Index symbols) {
  return [head = nn::Linear(params, features, symbols)](const Tensor& x, const Tensor& targets) {
    return cross_entropy(head(x), targets);
  };
}

Loss by_chunks(const Params& params, Index symbols) {
  return [head = nn::Linear(params, features, symbols)](const Tensor& x, const Tensor& targets) {
    return head.cross_entropy(x, targets);
  };
}

Loss adaptive(const Params& params, Index symbols) {
  const nn::AdaptiveSoftmax head(params, features, symbols, {symbols / 16, symbols / 4});
  return [head](const Tensor& x, const Tensor& targets) { return head.cross_entropy(x, targets); };
}

Loss by_classes(const Params& params, Index symbols) {
  std::vector<Index> counts;
  for (Index s = 0; s < symbols; ++s) counts.push_back(100'000'000 / (s + 1));
  const auto classes = static_cast<Index>(std::sqrt(static_cast<double>(symbols)));
  const nn::ClassFactoredSoftmax head(params, features, nn::classes_by_frequency(counts, classes));
  return [head](const Tensor& x, const Tensor& targets) { return head.cross_entropy(x, targets); };
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  std::printf("A head on %d features and its loss, %d rows, f32, one thread: forward, backward\n\n",
              static_cast<int>(features), static_cast<int>(rows));
  std::printf("%8s  %-34s %12s %12s %12s %8s\n", "symbols", "head", "10^6 params", "pool MiB",
              "resident MiB", "ms");
  const std::vector<std::pair<const char*, MakeHead>> heads{
      {"cross_entropy(head(x), targets)", in_two_ops},
      {"head.cross_entropy(x, targets)", by_chunks},
      {"AdaptiveSoftmax {V/16, V/4}", adaptive},
      {"ClassFactoredSoftmax, √V classes", by_classes}};
  for (const Index symbols : {10'000, 33'000}) {
    std::vector<std::vector<Figures>> all(heads.size());
    for (int i = 0; i < rounds; ++i)
      for (std::size_t k = 0; k < heads.size(); ++k)
        all[k].push_back(bench::measured_apart([&] { return measure(symbols, heads[k].second); }));
    for (std::size_t k = 0; k < heads.size(); ++k) {
      std::ranges::sort(all[k], {}, &Figures::ms);
      const Figures& f = all[k][all[k].size() / 2];
      std::printf("%8d  %-34s %12.2f %12.1f %12.1f %8.1f\n", static_cast<int>(symbols),
                  heads[k].first, f.parameters, f.pool, f.resident, f.ms);
    }
  }
}
