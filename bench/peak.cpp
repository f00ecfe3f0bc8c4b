#include "peak.h"

#include <Eigen/Core>

#include <chrono>

// Compiled once for each level: see level.h.
namespace reel::bench {
namespace {

// Ten independent chains, all in registers.
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

}  // namespace

template <>
double fma_gflops_at<kernels::lowest_level, float>() {
  return chains_of_fma<float>();
}
template <>
double fma_gflops_at<kernels::lowest_level, double>() {
  return chains_of_fma<double>();
}

}  // namespace reel::bench
