#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace reel::char_lm {

/// Lines of a report, below which on a terminal stands one line that is redrawn. What cannot be
/// written is dropped: a report is not worth stopping for.
class Terminal {
 public:
  explicit Terminal(std::FILE* file);
  /// Clears the redrawn line.
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Whether it is a terminal that can redraw; if not, `redraw` does nothing.
  bool redraws() const { return redraws_; }
  /// The number of columns.
  int width() const;

  /// Adds a line for good, with escapes for what is not printable.
  void line(std::string_view text);
  /// Replaces the redrawn line, which is cut to the width.
  void redraw(std::string_view text);

 private:
  void clear();

  std::FILE* file_;
  bool redraws_;
  bool drawn_ = false;
};

/// `text` as a word for a POSIX shell.
std::string shell_word(const std::string& text);

}  // namespace reel::char_lm
