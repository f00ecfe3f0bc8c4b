#pragma once

#include <benchmark/benchmark.h>

#include <map>

#include "peak.h"

namespace reel::bench {

/// The peak of `threads` threads, measured once per run.
template <class T>
double measured_peak(int threads) {
  static std::map<int, double> measured;
  const auto [place, is_new] = measured.try_emplace(threads, 0.0);
  if (is_new) place->second = peak_gflops<T>(threads);
  return place->second;
}

/// Adds the columns GFLOP/s and of_peak to a row whose iterations do `flop` floating point
/// operations of type T on `threads` threads. Call it before the loop: it may have to measure the
/// peak.
template <class T>
void report_rate(benchmark::State& state, double flop, int threads) {
  using benchmark::Counter;
  const auto per_iteration =
      static_cast<Counter::Flags>(Counter::kIsRate | Counter::kIsIterationInvariant);
  state.counters["GFLOP/s"] = Counter(1e-9 * flop, per_iteration);
  state.counters["of_peak"] = Counter(1e-9 * flop / measured_peak<T>(threads), per_iteration);
}

}  // namespace reel::bench
