#include "terminal.h"

#include <algorithm>
#include <cctype>

#include <reel/autograd/message.h>

#include "../support/system.h"

namespace reel::char_lm {

Terminal::Terminal(std::FILE* file) : file_(file), redraws_(examples::can_redraw(file)) {}

Terminal::~Terminal() {
  clear();
  std::fflush(file_);
}

int Terminal::width() const { return examples::columns(file_); }

void Terminal::clear() {
  if (drawn_) std::fputs("\r\033[K", file_);
  drawn_ = false;
}

void Terminal::line(std::string_view text) { raw_line(printable(text)); }

void Terminal::raw_line(std::string_view text) {
  clear();
  std::fwrite(text.data(), 1, text.size(), file_);
  std::fputc('\n', file_);
  std::fflush(file_);
}

void Terminal::redraw(std::string_view text) {
  if (!redraws_) return;
  clear();
  text = text.substr(0, static_cast<std::size_t>(width() - 1));  // the last column would wrap
  std::fprintf(file_, "%.*s", static_cast<int>(text.size()), text.data());
  std::fflush(file_);
  drawn_ = true;
}

std::string shell_word(const std::string& text) {
  constexpr std::string_view plain = "_-./+,:@%=";
  const auto is_plain = [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || plain.find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::ranges::all_of(text, is_plain)) return text;
  std::string word = "'";
  for (char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

}  // namespace reel::char_lm
