#pragma once

namespace reel::char_lm {

/// Characters and the time they took.
struct Pace {
  double chars = 0, seconds = 0;

  void add(double more_chars, double more_seconds) {
    chars += more_chars;
    seconds += more_seconds;
  }
  double chars_per_s() const { return seconds > 0 ? chars / seconds : 0; }
};

}  // namespace reel::char_lm
