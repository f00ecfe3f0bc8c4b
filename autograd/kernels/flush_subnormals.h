#pragma once

#include <cstdint>
#include <utility>

// Arithmetic on subnormal numbers takes ten to thirty times as long as on normal ones, and decaying
// values become subnormal: gradients through many steps, an optimizer's moments, softmax weights.
// So the library flushes them to zero: arithmetic treats subnormal operands as 0 and returns 0 in
// place of subnormal results; copies keep them.
namespace reel::kernels {

/// The floating-point mode of a thread: rounding, traps and the treatment of subnormal numbers.
using FloatMode = std::uint64_t;

#if defined(__SSE2__)

inline constexpr FloatMode flushing = 0x8040;  // operands (DAZ) and results (FTZ)
inline FloatMode float_mode() {
  std::uint32_t mode;
  __asm__ __volatile__("stmxcsr %0" : "=m"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) {
  const auto word = static_cast<std::uint32_t>(mode);
  __asm__ __volatile__("ldmxcsr %0" : : "m"(word) : "memory");
}

#elif defined(__aarch64__)

inline constexpr FloatMode flushing = 1 << 24;  // FZ
inline FloatMode float_mode() {
  FloatMode mode;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_float_mode(FloatMode mode) {
  __asm__ __volatile__("msr fpcr, %0" : : "r"(mode) : "memory");
}

#else

inline constexpr FloatMode flushing = 0;
inline FloatMode float_mode() { return 0; }
inline void set_float_mode(FloatMode) {}

#endif

/// What this thread's scopes added to the mode of the caller.
inline constinit thread_local FloatMode added_mode = 0;

/// Flushes subnormal numbers to zero on this thread for its lifetime, then restores the mode. A
/// nested scope only reads the mode.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(float_mode()), changes_((before_ & flushing) != flushing) {
    if (!changes_) return;
    set_float_mode(before_ | flushing);
    added_mode = flushing & ~before_;
  }
  ~FlushSubnormals() {
    if (!changes_) return;
    set_float_mode(before_);
    added_mode = 0;
  }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  FloatMode before_;
  bool changes_;
};

/// Restores the mode of the library's caller on this thread for its lifetime: for user functions
/// that the library calls.
class CallersMode {
 public:
  CallersMode() : before_(float_mode()), added_(std::exchange(added_mode, 0)) {
    if (added_ != 0) set_float_mode(before_ & ~added_);
  }
  ~CallersMode() {
    if (added_ != 0) set_float_mode(before_);
    added_mode = added_;
  }
  CallersMode(const CallersMode&) = delete;
  CallersMode& operator=(const CallersMode&) = delete;

 private:
  FloatMode before_, added_;
};

}  // namespace reel::kernels
