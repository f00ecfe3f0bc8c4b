#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace reel::char_lm {

/// Lines of a report, followed on a terminal by one line that is redrawn. Write errors are ignored:
/// a report is not worth stopping for.
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

  /// Adds a permanent line, with unprintable characters escaped.
  void line(std::string_view text);
  /// Adds a permanent line as it is, for programs.
  void raw_line(std::string_view text);
  /// Replaces the redrawn line, truncated to the width.
  void redraw(std::string_view text);

 private:
  void clear();

  std::FILE* file_;
  bool redraws_;
  bool drawn_ = false;
};

/// `text` quoted as a word for a POSIX shell.
std::string shell_word(const std::string& text);

}  // namespace reel::char_lm
