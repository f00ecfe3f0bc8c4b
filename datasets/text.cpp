#include <reel/datasets/text.h>

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/autograd/utf8.h>
#include <reel/datasets/encoding.h>
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

void require_well_formed(std::string_view text, std::size_t end, Site site) {
  if (end < text.size())
    throw ValueError(fmt::format("the text is not valid UTF-8 at byte {}", end), site);
}

// The most bytes a text may have. A pipe's length is not known in advance; a text and its tokens
// take 5 bytes per symbol.
std::uint64_t most_bytes(const nn::FileStatus& status) {
  const std::uint64_t memory = nn::system::physical_memory() / 5;
  constexpr std::uint64_t most_of_a_pipe = 1 << 30;
  return status.is_regular() ? memory : std::min(memory, most_of_a_pipe);
}

// A text is read in parts, as a string that grows would need three times its memory. The first part
// is small: a binary file is recognised by it.
constexpr std::size_t small_part = 1 << 16, large_part = 1 << 24;

// The parts in one string; each is released once it is copied, so that together they hardly need
// more memory than the text.
std::string joined(std::vector<std::string>& parts) {
  if (parts.size() == 1) return std::move(parts.front());
  std::size_t length = 0;
  for (const std::string& part : parts) length += part.size();
  std::string text;
  text.reserve(length);
  for (std::string& part : parts) {
    text += part;
    part = std::string();
  }
  return text;
}

std::string content_of(const std::filesystem::path& path, TextMode mode) {
  const nn::Location where = path;
  const auto fail = [&](std::string_view what) {
    throw FileError(fmt::format("{}: {}", where.str(), what));
  };
  if (const auto there =
          nn::status_of(where)) {  // before it is opened: opening a device may have side effects
    if (there->is_directory()) fail("is a directory; name a text file");
    if (there->kind == nn::system::FileKind::device)
      fail("is a device, which has no end; name a text file");
  }
  nn::File file(where, O_RDONLY);
  const nn::FileStatus status = file.status();
  const std::uint64_t most = most_bytes(status);
  const auto require_length = [&](std::uint64_t length) {
    if (length > most)
      fail(fmt::format(
          "the text is too long: it has more than the {} bytes that {}; take a part "
          "of it",
          most, status.is_regular() ? "this machine has memory for" : "are read from a pipe"));
  };
  if (status.is_regular()) require_length(status.size);
  try {
    std::vector<std::string> parts;
    std::uint64_t length = 0;
    while (true) {
      std::string part(parts.empty() ? small_part : large_part, '\0');
      const std::size_t count = file.read(std::as_writable_bytes(std::span(part)));
      const bool is_last = count < part.size();
      part.resize(count);
      length += count;
      // Text contains no NUL, and a large non-text file need not be read to its end.
      const bool is_binary = mode == TextMode::utf8 && part.find('\0') != std::string::npos;
      parts.push_back(std::move(part));
      require_length(length);
      if (is_last || is_binary) break;
    }
    return joined(parts);
  } catch (const std::bad_alloc&) {
    fail("there is not enough memory for the text; take a part of it");
  }
  return {};
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
  if (const char* encoding = encoding_of_units(text))
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

Vocabulary::Vocabulary(std::string_view text, TextMode mode, Site site) : mode_(mode) {
  if (text.empty()) throw ValueError("a vocabulary needs a text that is not empty", site);
  std::vector<bool> occurs(mode == TextMode::bytes ? 256 : utf8::last_code_point + 1);
  char32_t last = 0;
  const std::size_t end = each_symbol(text, mode, [&](char32_t c, std::size_t) {
    occurs[c] = true;
    last = std::max(last, c);
  });
  require_well_formed(text, end, site);
  for (char32_t c = 0; c <= last; ++c)
    if (occurs[c]) symbols_.push_back(c);
}

Vocabulary::Vocabulary(std::vector<char32_t> symbols, TextMode mode, Site site)
    : symbols_(std::move(symbols)), mode_(mode) {
  if (symbols_.empty()) throw ValueError("a vocabulary needs at least one symbol", site);
  if (std::ranges::adjacent_find(symbols_, std::ranges::greater_equal()) != symbols_.end())
    throw ValueError("the symbols of a vocabulary must ascend, each occurring once", site);
  const char32_t last = mode == TextMode::bytes ? 0xFF : utf8::last_code_point;
  for (char32_t c : symbols_)
    if (c > last || utf8::is_surrogate(c))
      throw ValueError(
          fmt::format("the symbol {} of a vocabulary is not a {}", static_cast<std::uint32_t>(c),
                      mode == TextMode::bytes ? "byte" : "Unicode code point"),
          site);
}

std::vector<std::int32_t> Vocabulary::encode(std::string_view text, Site site) const {
  std::vector<std::int32_t> rank(symbols_.back() + 1, -1);
  for (std::size_t i = 0; i < symbols_.size(); ++i)
    rank[symbols_[i]] = static_cast<std::int32_t>(i);
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  const std::size_t end = each_symbol(text, mode_, [&](char32_t c, std::size_t offset) {
    if (c >= rank.size() || rank[c] < 0)
      throw ValueError(fmt::format("the {} {} at byte {} is not in the vocabulary of {} symbols",
                                   mode_ == TextMode::bytes ? "byte" : "character",
                                   name_of(c, mode_), offset, size()),
                       site);
    tokens.push_back(rank[c]);
  });
  require_well_formed(text, end, site);
  return tokens;
}

std::string Vocabulary::decode(std::span<const std::int32_t> tokens, Site site) const {
  std::string text;
  for (std::int32_t token : tokens) {
    if (token < 0 || token >= size())
      throw ValueError(
          fmt::format("there is no token {} in a vocabulary of {} symbols", token, size()), site);
    const char32_t symbol = symbols_[static_cast<std::size_t>(token)];
    if (mode_ == TextMode::bytes)
      text += static_cast<char>(symbol);
    else
      utf8::append(text, symbol);
  }
  return text;
}

}  // namespace reel::datasets
