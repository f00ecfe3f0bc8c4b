#include <reel/datasets/text.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <new>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/autograd/utf8.h>
#include <reel/nn/files/file.h>

namespace reel::datasets {
namespace {

utf8::Symbol symbol_at(std::string_view text, std::size_t offset, TextMode mode) {
  if (mode == TextMode::bytes) return {static_cast<unsigned char>(text[offset]), 1};
  return utf8::symbol_at(text, offset);
}

// Calls f(symbol, offset) for each symbol. Returns the offset of the first malformed one, or the
// size.
template <class F>
std::size_t each_symbol(std::string_view text, TextMode mode, F&& f) {
  std::size_t offset = 0;
  while (offset < text.size()) {
    const utf8::Symbol symbol = symbol_at(text, offset, mode);
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

// The name of the encoding if the text has code units of 2 or 4 bytes, according to its byte order
// mark or, without one, a heuristic: units are letters, with no control characters among them.
const char* wide_encoding(std::string_view text) {
  const auto begins = [&](std::string_view mark) { return text.starts_with(mark); };
  if (begins({"\xFF\xFE\0\0", 4}) || begins({"\0\0\xFE\xFF", 4})) return "UTF-32";
  if (begins("\xFF\xFE") || begins("\xFE\xFF")) return "UTF-16";

  if (text.find('\0') == std::string_view::npos) return nullptr;  // not even in a space
  text = text.substr(0, 4096);
  const auto is_text = [&](std::size_t width, bool big_endian) {
    bool has_ascii = false;
    for (std::size_t i = 0; i + width <= text.size(); i += width) {
      std::uint32_t unit = 0;
      for (std::size_t k = 0; k < width; ++k)
        unit = unit << 8 | static_cast<unsigned char>(text[i + (big_endian ? k : width - 1 - k)]);
      const bool is_space = unit == '\t' || unit == '\n' || unit == '\r';
      if (!is_space && (unit < 0x20 || unit >= 0x2000)) return false;  // most alphabets
      has_ascii |= unit < 0x80;
    }
    return has_ascii;  // a space at least
  };
  if (is_text(4, false)) return "UTF-32LE";
  if (is_text(4, true)) return "UTF-32BE";
  if (is_text(2, false)) return "UTF-16LE";
  if (is_text(2, true)) return "UTF-16BE";
  return nullptr;
}

// The most bytes a text may have. A pipe's length is not known in advance; a text and its tokens
// take 5 bytes per symbol.
std::uint64_t most_bytes(const struct stat& status) {
  const auto memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                      static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 5;
  constexpr std::uint64_t most_of_a_pipe = 1 << 30;
  return S_ISREG(status.st_mode) ? memory : std::min(memory, most_of_a_pipe);
}

std::string content_of(const std::filesystem::path& path, TextMode mode) {
  const nn::Location where = path;
  const auto fail = [&](std::string_view what) {
    throw FileError(fmt::format("{}: {}", where.str(), what));
  };
  if (const auto there =
          nn::status_of(where)) {  // before it is opened: opening a device may have side effects
    if (S_ISDIR(there->st_mode)) fail("is a directory; name a text file");
    if (S_ISCHR(there->st_mode) || S_ISBLK(there->st_mode))
      fail("is a device, which has no end; name a text file");
  }
  nn::File file(where, O_RDONLY);
  const struct stat status = file.status();
  const std::uint64_t most = most_bytes(status);
  const auto require_length = [&](std::uint64_t length) {
    if (length > most)
      fail(fmt::format(
          "the text is too long: it has more than the {} bytes that {}; take a part "
          "of it",
          most, S_ISREG(status.st_mode) ? "this machine has memory for" : "are read from a pipe"));
  };
  if (S_ISREG(status.st_mode)) require_length(static_cast<std::uint64_t>(status.st_size));
  std::string content;
  try {
    std::array<std::byte, 1 << 16> chunk;
    for (std::size_t count = chunk.size(); count == chunk.size();) {
      count = file.read(chunk);
      const std::string_view part(reinterpret_cast<const char*>(chunk.data()), count);
      content += part;
      require_length(content.size());
      // Text contains no NUL, and a large non-text file need not be read to its end.
      if (mode == TextMode::utf8 && part.find('\0') != std::string_view::npos) break;
    }
  } catch (const std::bad_alloc&) {
    fail("there is not enough memory for the text; take a part of it");
  }
  return content;
}

}  // namespace

std::string read_text(const std::filesystem::path& path, TextMode mode) {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  const auto refuse = [&](std::string_view what) {
    throw FileError(fmt::format("{}: {}", nn::Location(path).str(), what));
  };
  constexpr std::string_view as_bytes = "read it as bytes (--bytes on the command line)";
  std::string text = content_of(path, mode);
  const bool marked = mode == TextMode::utf8 && text.starts_with(mark);
  if (text.size() == (marked ? mark.size() : 0))
    refuse("the file is empty; there is no text in it");
  if (mode == TextMode::bytes) return text;
  if (const char* encoding = wide_encoding(text))
    refuse(fmt::format("{0} text, not UTF-8; convert it with iconv -f {0} -t UTF-8", encoding));
  if (const std::size_t nul = text.find('\0'); nul != std::string::npos)
    refuse(fmt::format("a binary file, not text (a NUL at byte {}); {}", nul, as_bytes));
  if (const std::size_t end = each_symbol(text, mode, [](char32_t, std::size_t) {});
      end < text.size())
    refuse(
        fmt::format("not valid UTF-8 at byte {}; convert it (if it is Latin-1, with iconv -f "
                    "ISO-8859-1 -t UTF-8), or {}",
                    end, as_bytes));
  if (marked) text.erase(0, mark.size());
  return text;
}

std::string name_of(char32_t symbol, TextMode mode) {
  const auto number = static_cast<std::uint32_t>(symbol);
  if (mode == TextMode::bytes) return fmt::format("0x{:02X}", number);
  if (!is_printable(symbol)) return fmt::format("U+{:04X}", number);
  std::string printed;
  utf8::append(printed, symbol);
  return fmt::format("'{}' (U+{:04X})", printed, number);
}

Vocabulary::Vocabulary(std::string_view text, TextMode mode) : mode_(mode) {
  if (text.empty()) throw ValueError("a vocabulary needs a text that is not empty");
  std::vector<bool> occurs(mode == TextMode::bytes ? 256 : utf8::last_code_point + 1);
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
  const char32_t last = mode == TextMode::bytes ? 0xFF : utf8::last_code_point;
  for (char32_t c : symbols_)
    if (c > last || utf8::is_surrogate(c))
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
      throw ValueError(fmt::format("the {} {} at byte {} is not in the vocabulary of {} symbols",
                                   mode_ == TextMode::bytes ? "byte" : "character",
                                   name_of(c, mode_), offset, size()));
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
      utf8::append(text, symbol);
  }
  return text;
}

}  // namespace reel::datasets
