#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/shape.h>

namespace reel::datasets {

/// What the symbols of a text are: the code points of UTF-8, or plain bytes, which take any file.
enum class TextMode : std::uint8_t { utf8, bytes };

/// The content of a file or pipe. In the mode `utf8` a byte order mark at its beginning is left
/// out. Throws FileError when it is missing, unreadable, empty, a directory or a device, or longer
/// than there is memory for; in the mode `utf8` also when it is UTF-16 or UTF-32, holds a NUL byte
/// or is not well-formed UTF-8 (RFC 3629), naming the offset.
std::string read_text(const std::filesystem::path& path, TextMode mode = TextMode::utf8);

/// A symbol for a message: "'é' (U+00E9)", "U+0007", "0xFF".
std::string name_of(char32_t symbol, TextMode mode);

/// The distinct symbols of a text in ascending order. The token of a symbol is its rank among them.
class Vocabulary {
 public:
  /// The symbols that occur in `text`. Throws ValueError when it is empty or not UTF-8 as the mode
  /// asks.
  Vocabulary(std::string_view text, TextMode mode);
  /// The symbols that `symbols()` of another vocabulary returned. Throws ValueError unless there is
  /// one, they ascend, and all are code points (or bytes).
  Vocabulary(std::vector<char32_t> symbols, TextMode mode);

  Index size() const { return static_cast<Index>(symbols_.size()); }
  TextMode mode() const { return mode_; }
  const std::vector<char32_t>& symbols() const { return symbols_; }

  /// The tokens of a text, each in 0 .. size() - 1. Throws ValueError naming the first symbol that
  /// is not in the vocabulary and its byte offset.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// The text of some tokens. Throws ValueError for one outside 0 .. size() - 1.
  std::string decode(std::span<const std::int32_t> tokens) const;

  bool operator==(const Vocabulary&) const = default;

 private:
  std::vector<char32_t> symbols_;
  TextMode mode_;
};

}  // namespace reel::datasets
