#pragma once

#include <Eigen/Core>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

namespace reel::bench {

/// Fused multiply-adds in registers, ten independent chains; returns GFLOP/s of this thread.
template <class T>
double chains_of_fma() {
  using namespace Eigen::internal;
  using P = typename packet_traits<T>::type;
  constexpr int chains = 10, rounds = 1 << 21;
  P sum[chains];
  for (P& s : sum) s = pset1<P>(T(1));
  volatile T hidden = T(0.5);  // unknown to the compiler
  const T half = hidden;
  const P factor = pset1<P>(half), term = factor;
  const auto begin = std::chrono::steady_clock::now();
  for (int r = 0; r < rounds; ++r)
    for (P& s : sum) s = pmadd(s, factor, term);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  P total = sum[0];
  for (int i = 1; i < chains; ++i) total = padd(total, sum[i]);
  volatile T sink = pfirst(total);
  static_cast<void>(sink);
  return 2e-9 * chains * rounds * int{packet_traits<T>::size} / seconds.count();
}

/// The machine's peak for `threads` threads together, the best of several trials, in GFLOP/s.
template <class T>
double peak_gflops(int threads) {
  double best = 0;
  for (int attempt = 0; attempt < 4; ++attempt) {
    std::vector<double> each(static_cast<std::size_t>(threads));
    std::vector<std::thread> others;
    for (std::size_t i = 1; i < each.size(); ++i)
      others.emplace_back([&each, i] { each[i] = chains_of_fma<T>(); });
    each[0] = chains_of_fma<T>();
    for (std::thread& t : others) t.join();
    double sum = 0;
    for (double gflops : each) sum += gflops;
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace reel::bench
