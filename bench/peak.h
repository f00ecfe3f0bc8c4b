#pragma once

#include <algorithm>
#include <thread>
#include <vector>

#include <reel/autograd/kernels/level.h>

namespace reel::bench {

template <kernels::Level level, class T>
double fma_gflops_at();

/// Fused multiply-adds in registers with the instructions of this process; returns GFLOP/s of this
/// thread.
template <class T>
double fma_gflops() {
  return kernels::with_level([](auto level) { return fma_gflops_at<level(), T>(); });
}

/// The machine's peak for `threads` threads together, the best of several trials, in GFLOP/s.
template <class T>
double peak_gflops(int threads) {
  double best = 0;
  for (int attempt = 0; attempt < 4; ++attempt) {
    std::vector<double> each(static_cast<std::size_t>(threads));
    std::vector<std::thread> others;
    for (std::size_t i = 1; i < each.size(); ++i)
      others.emplace_back([&each, i] { each[i] = fma_gflops<T>(); });
    each[0] = fma_gflops<T>();
    for (std::thread& t : others) t.join();
    double sum = 0;
    for (double gflops : each) sum += gflops;
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace reel::bench
