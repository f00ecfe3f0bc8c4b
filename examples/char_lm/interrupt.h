#pragma once

namespace reel::char_lm {

/// During its lifetime SIGINT and SIGTERM set a flag; a second one terminates the program at once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  /// The signal that was received, or 0.
  static int signal();
};

}  // namespace reel::char_lm
