#pragma once

#include <type_traits>
#include <utility>

// One binary for every processor: kernels are compiled for several instruction sets from one
// source, and the process chooses among them once, when it first computes.
namespace reel::kernels {

/// An instruction set that kernels are compiled for. `avx2` has fused multiply-add, `avx512` the
/// subsets F, BW, CD, DQ and VL; `baseline` is what every processor of the architecture has. From
/// avx2 on the bits of all results are the same.
enum class Level { baseline, avx2, avx512 };

/// What the compiler may use everywhere: there are no kernels below.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512CD__) && \
    defined(__AVX512DQ__) && defined(__AVX512VL__)
constexpr Level lowest_level = Level::avx512;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr Level lowest_level = Level::avx2;
#else
constexpr Level lowest_level = Level::baseline;
#endif

#if defined(__x86_64__)
constexpr Level highest_level = Level::avx512;
#else
constexpr Level highest_level = Level::baseline;
#endif
constexpr Level level_below(Level level) { return static_cast<Level>(static_cast<int>(level) - 1); }

/// The level of this process: the highest that the processor has, or the one that the environment
/// variable REEL_CPU names. Throws ValueError if that is unknown, or not there.
Level level();

/// "baseline", "avx2" or "avx512".
const char* name_of(Level level);

/// Whether the level is avx512 and the processor has, and Linux lets this process use, matrix tiles
/// for bf16 (AMX).
bool has_tiles();

namespace detail {

template <Level candidate, class F>
decltype(auto) with_level(Level level, F& f) {
  if constexpr (candidate > lowest_level)
    if (level < candidate) return with_level<level_below(candidate)>(level, f);
  return f(std::integral_constant<Level, candidate>{});
}

/// Whether products are fused with sums, as the processor does it: see multiply_add.
#if defined(__x86_64__) && !defined(__FMA__)
#define REEL_CHOOSES_FUSION
[[gnu::const]] bool fuses() noexcept;
#else
constexpr bool fuses() noexcept { return true; }
#endif

#ifdef __clang__
#define REEL_AVX512 "avx512f,avx512bw,avx512cd,avx512dq,avx512vl"
#else  // GCC would vectorise for half of the registers' width
#define REEL_AVX512 "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,prefer-vector-width=512"
#endif

// What each of these functions calls, and can be inlined, is compiled for its instructions. To the
// compiler fuses() is a constant in them.
template <class F>
[[gnu::noinline, gnu::flatten]] void call_baseline(F& f) {
#if defined(REEL_CHOOSES_FUSION)
  if (fuses()) __builtin_unreachable();
#endif
  f();
}
#if defined(__x86_64__)
template <class F>
[[gnu::noinline, gnu::flatten, gnu::target("avx2,fma")]] void call_avx2(F& f) {
  if (!fuses()) __builtin_unreachable();
  f();
}
template <class F>
[[gnu::noinline, gnu::flatten, gnu::target(REEL_AVX512)]] void call_avx512(F& f) {
  if (!fuses()) __builtin_unreachable();
  f();
}
#endif
#undef REEL_AVX512

}  // namespace detail

/// `f(std::integral_constant<Level, level()>{})`: calls one of several functions for a level. Their
/// source file, one of `level_sources` in meson.build, defines them for `lowest_level` and is
/// compiled once for each level.
template <class F>
decltype(auto) with_level(F&& f) {
  return detail::with_level<highest_level>(level(), f);
}

/// Calls `f()`, compiled for the level of this process together with all that it calls and whose
/// definition the compiler sees: it should contain the loop over the elements, as calling it costs
/// a few ns.
template <class F>
[[gnu::always_inline]] inline void at_level(F&& f) {
  with_level([&](auto level) {
    if constexpr (level() == Level::baseline) detail::call_baseline(f);
#if defined(__x86_64__)
    if constexpr (level() == Level::avx2) detail::call_avx2(f);
    if constexpr (level() == Level::avx512) detail::call_avx512(f);
#endif
  });
}

}  // namespace reel::kernels
