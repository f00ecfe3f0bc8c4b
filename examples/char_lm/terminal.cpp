#include "terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include <reel/autograd/message.h>

namespace reel::char_lm {
namespace {

bool can_redraw(std::FILE* file) {
  const char* kind = std::getenv("TERM");
  return isatty(fileno(file)) != 0 && kind && std::string_view(kind) != "dumb";
}

}  // namespace

Terminal::Terminal(std::FILE* file) : file_(file), redraws_(can_redraw(file)) {}

Terminal::~Terminal() {
  clear();
  std::fflush(file_);
}

int Terminal::width() const {
  winsize size{};
  const bool known = ioctl(fileno(file_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

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
