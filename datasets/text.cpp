#include <reel/datasets/text.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <reel/autograd/error.h>

namespace reel::datasets {
namespace {

constexpr char32_t last_code_point = 0x10FFFF;

bool is_surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

// A symbol of a text and the bytes it takes; none where the text is malformed.
struct Symbol {
  char32_t value;
  std::size_t length;
};
constexpr Symbol malformed{0, 0};

Symbol utf8_symbol(std::string_view text, std::size_t offset) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[offset + i]));
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead < 0xC0   ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF8 ? 4
                                           : 0;
  if (length == 0 || length > text.size() - offset) return malformed;
  char32_t value = lead & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return malformed;
    value = value << 6 | (byte(i) & 0x3F);
  }
  constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};  // below it the form is overlong
  if (value < least[length] || value > last_code_point || is_surrogate(value)) return malformed;
  return {value, length};
}

Symbol symbol_at(std::string_view text, std::size_t offset, TextMode mode) {
  if (mode == TextMode::bytes) return {static_cast<unsigned char>(text[offset]), 1};
  return utf8_symbol(text, offset);
}

// Calls f(symbol, offset) for each symbol. Returns the offset of the first malformed one, or the
// size.
template <class F>
std::size_t each_symbol(std::string_view text, TextMode mode, F&& f) {
  std::size_t offset = 0;
  while (offset < text.size()) {
    const Symbol symbol = symbol_at(text, offset, mode);
    if (symbol.length == 0) break;
    f(symbol.value, offset);
    offset += symbol.length;
  }
  return offset;
}

void require_well_formed(std::string_view text, std::size_t end) {
  if (end < text.size())
    throw ValueError(fmt::format("the text is not valid UTF-8 at byte {}; take it as bytes", end));
}

void append_utf8(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  const auto put_tail = [&](int shift) { put(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put_tail(6);
  } else {
    put(0xF0 | c >> 18);
    put_tail(12);
    put_tail(6);
  }
  put_tail(0);
}

// "the character 'é' (U+00E9)"; a control character is not printed.
std::string description(char32_t symbol, TextMode mode) {
  if (mode == TextMode::bytes)
    return fmt::format("the byte 0x{:02X}", static_cast<std::uint32_t>(symbol));
  const std::string number = fmt::format("U+{:04X}", static_cast<std::uint32_t>(symbol));
  if (symbol < 0x20 || (symbol >= 0x7F && symbol < 0xA0)) return "the character " + number;
  std::string printed;
  append_utf8(printed, symbol);
  return fmt::format("the character '{}' ({})", printed, number);
}

std::string content_of(const std::filesystem::path& path) {
  const auto fail = [&] {
    throw FileError(fmt::format("{}: cannot read: {}", path.string(), std::strerror(errno)));
  };
  if (std::error_code ignored; std::filesystem::is_directory(path, ignored))
    throw FileError(path.string() + ": is a directory; name a text file");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail();
  std::string content;
  std::array<char, 1 << 16> chunk;
  do {
    file.read(chunk.data(), chunk.size());
    content.append(chunk.data(), static_cast<std::size_t>(file.gcount()));
  } while (file);
  if (file.bad()) fail();
  return content;
}

}  // namespace

std::string read_text(const std::filesystem::path& path, TextMode mode) {
  std::string text = content_of(path);
  if (text.empty()) throw FileError(path.string() + ": the file is empty; there is no text in it");
  if (mode == TextMode::bytes) return text;
  if (const std::size_t nul = text.find('\0'); nul != std::string::npos)
    throw FileError(
        fmt::format("{}: a binary file, not text (a NUL at byte {}); read it as bytes "
                    "(--bytes on the command line)",
                    path.string(), nul));
  if (const std::size_t end = each_symbol(text, mode, [](char32_t, std::size_t) {});
      end < text.size())
    throw FileError(
        fmt::format("{}: not valid UTF-8 at byte {}; convert it, or read it as bytes "
                    "(--bytes on the command line)",
                    path.string(), end));
  return text;
}

Vocabulary::Vocabulary(std::string_view text, TextMode mode) : mode_(mode) {
  if (text.empty()) throw ValueError("a vocabulary needs a text that is not empty");
  std::vector<bool> occurs(mode == TextMode::bytes ? 256 : last_code_point + 1);
  require_well_formed(text,
                      each_symbol(text, mode, [&](char32_t c, std::size_t) { occurs[c] = true; }));
  for (std::size_t c = 0; c < occurs.size(); ++c)
    if (occurs[c]) symbols_.push_back(static_cast<char32_t>(c));
}

Vocabulary::Vocabulary(std::vector<char32_t> symbols, TextMode mode)
    : symbols_(std::move(symbols)), mode_(mode) {
  if (symbols_.empty()) throw ValueError("a vocabulary needs at least one symbol");
  if (std::ranges::adjacent_find(symbols_, std::ranges::greater_equal()) != symbols_.end())
    throw ValueError("the symbols of a vocabulary must ascend, each occurring once");
  const char32_t last = mode == TextMode::bytes ? 0xFF : last_code_point;
  for (char32_t c : symbols_)
    if (c > last || is_surrogate(c))
      throw ValueError(fmt::format("the symbol {} of a vocabulary is not a {}",
                                   static_cast<std::uint32_t>(c),
                                   mode == TextMode::bytes ? "byte" : "Unicode code point"));
}

std::vector<std::int32_t> Vocabulary::encode(std::string_view text) const {
  std::vector<std::int32_t> rank(symbols_.back() + 1, -1);
  for (std::size_t i = 0; i < symbols_.size(); ++i)
    rank[symbols_[i]] = static_cast<std::int32_t>(i);
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  const std::size_t end = each_symbol(text, mode_, [&](char32_t c, std::size_t offset) {
    if (c >= rank.size() || rank[c] < 0)
      throw ValueError(fmt::format("{} at byte {} is not in the vocabulary of {} symbols",
                                   description(c, mode_), offset, size()));
    tokens.push_back(rank[c]);
  });
  require_well_formed(text, end);
  return tokens;
}

std::string Vocabulary::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (std::int32_t token : tokens) {
    if (token < 0 || token >= size())
      throw ValueError(
          fmt::format("there is no token {} in a vocabulary of {} symbols", token, size()));
    const char32_t symbol = symbols_[static_cast<std::size_t>(token)];
    if (mode_ == TextMode::bytes)
      text += static_cast<char>(symbol);
    else
      append_utf8(text, symbol);
  }
  return text;
}

}  // namespace reel::datasets
