#include <reel/autograd/kernels/level.h>

#include <cstdlib>
#include <string>
#include <string_view>

#if defined(__x86_64__) && defined(__linux__)
#define REEL_MAY_HAVE_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <fmt/format.h>

#include <reel/autograd/error.h>

namespace reel::kernels {
namespace {

constexpr Level levels[] = {Level::baseline, Level::avx2, Level::avx512};

bool processor_has(Level level) {
#if defined(__x86_64__)
  __builtin_cpu_init();  // ops may run before other files' initialisers
  // Also whether the operating system saves the registers.
  const auto has_avx2 = [] {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  };
  const auto has_avx512 = [] {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  };
  return level == Level::baseline || (level == Level::avx2 ? has_avx2() : has_avx512());
#else
  return level <= highest_level;
#endif
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
