#include <reel/autograd/kernels/level.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#define REEL_MAY_HAVE_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <fmt/format.h>

#include <reel/autograd/error.h>

namespace reel::kernels {
namespace {

constexpr Level levels[] = {Level::baseline, Level::avx2, Level::avx512};

#if defined(__x86_64__)
constexpr bool has_all(unsigned word, std::initializer_list<int> bits) {
  return std::ranges::all_of(bits, [&](int bit) { return (word >> bit & 1) != 0; });
}

// The registers that the operating system saves; the instruction is there if it says so (OSXSAVE).
unsigned saved_registers() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Intel's manual, volume 1, 14.3 and 15.2; __builtin_cpu_supports needs a run-time library that
// Zig's Clang does not have.
Level level_of_processor() {
  constexpr int fma = 12, osxsave = 27, avx = 28;
  constexpr int avx2 = 5, avx512f = 16, avx512dq = 17, avx512cd = 28, avx512bw = 30, avx512vl = 31;
  constexpr int xmm = 1, ymm = 2, masks = 5, zmm = 6, upper_zmm = 7;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, {fma, osxsave, avx})) return Level::baseline;
  const unsigned saved = saved_registers();
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, {avx2}) ||
      !has_all(saved, {xmm, ymm}))
    return Level::baseline;
  const bool has_avx512 = has_all(b, {avx512f, avx512dq, avx512cd, avx512bw, avx512vl}) &&
                          has_all(saved, {masks, zmm, upper_zmm});
  return has_avx512 ? Level::avx512 : Level::avx2;
}
#else
Level level_of_processor() { return highest_level; }
#endif

bool processor_has(Level level) {
  static const Level highest = level_of_processor();
  return level <= highest;
}

#if defined(REEL_MAY_HAVE_TILES)
// Threads do not have the 8 KB of a processor's tiles until their process asks for them
// (Linux 5.16, Documentation/arch/x86/xstate.rst).
bool obtain_tiles() {
  constexpr int request = 0x1023 /* ARCH_REQ_XCOMP_PERM */, tile_data = 18;
  constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
  unsigned a, b, c, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & amx_bf16) != 0 && (d & amx_tile) != 0 &&
         syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#else
bool obtain_tiles() { return false; }
#endif

std::string available() {
  std::string names;
  for (const Level level : levels)
    if (level >= lowest_level && processor_has(level))
      names += fmt::format("{}{}", names.empty() ? "" : ", ", name_of(level));
  return names;
}

struct Choice {
  Level level;
  std::string refusal;  // why it is not that of REEL_CPU
};

Choice choice_named(std::string_view name, Level best) {
  for (const Level level : levels) {
    if (name != name_of(level)) continue;
    if (!processor_has(level))
      return {best, fmt::format("REEL_CPU is {}, which this processor does not have; it has {}",
                                name, available())};
    if (level < lowest_level)
      return {best, fmt::format("REEL_CPU is {}, but this program was compiled for {} and above; "
                                "build Reel without -Dcpu to choose",
                                name, name_of(lowest_level))};
    return {level, ""};
  }
  return {best, fmt::format("REEL_CPU is \"{}\", which is no set of instructions; it may be {}",
                            name, available())};
}

const Choice& choice() {
  static const Choice made = [] {
    Level best = lowest_level;
    for (const Level level : levels)
      if (level > best && processor_has(level)) best = level;
    const char* const name = std::getenv("REEL_CPU");
    return name && *name ? choice_named(name, best) : Choice{best, ""};
  }();
  return made;
}

}  // namespace

const char* name_of(Level level) {
  switch (level) {
    case Level::avx512:
      return "avx512";
    case Level::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

Level level() {
  if (!choice().refusal.empty()) throw ValueError(choice().refusal);
  return choice().level;
}

bool has_tiles() {
  static const bool obtained = level() == Level::avx512 && obtain_tiles();
  return obtained;
}

#if defined(REEL_CHOOSES_FUSION)
// Cells try their equations before main, where nobody could catch an exception.
bool detail::fuses() noexcept { return choice().level != Level::baseline; }
#endif

}  // namespace reel::kernels
