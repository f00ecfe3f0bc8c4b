#pragma once

#include <csignal>
#include <iterator>

namespace reel::char_lm {

/// During its lifetime SIGINT, SIGTERM, SIGHUP and SIGXCPU (on Windows Ctrl-C and Ctrl-Break) set a
/// flag, unless they were ignored before; a second SIGINT or SIGTERM terminates the program at
/// once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  /// The signal that was received, or 0.
  static int signal();

 private:
#ifdef _WIN32
  static constexpr int signals[] = {SIGINT, SIGTERM, SIGBREAK};
#else
  static constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGXCPU};
#endif

  void (*before_[std::size(signals)])(int);
};

}  // namespace reel::char_lm
