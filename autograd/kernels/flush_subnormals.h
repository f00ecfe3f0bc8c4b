#pragma once

#include <cstdint>
#include <utility>

// A sum or product with a subnormal number, one so near to zero that it has lost digits, takes ten
// to thirty times as long as any other, and decaying values end among them: gradients through many
// steps, moments of an optimizer, weights of a softmax. So the library computes with such numbers
// as 0: arithmetic takes them as 0 and gives 0 in their place; copies keep them.
namespace reel::kernels {

/// The floating-point mode of a thread: rounding, traps, and what becomes of subnormal numbers.
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

/// What the scopes of a thread added to the mode of its caller.
inline constinit thread_local FloatMode added_mode = 0;

/// In its lifetime the thread takes subnormal numbers as 0; then its mode is what it was before. A
/// scope within another one only looks.
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

/// In its lifetime the thread has the mode of the library's caller: for functions of the caller's
/// that the library calls amid its work.
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
