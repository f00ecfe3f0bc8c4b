#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

namespace reel::datasets {

/// What the symbols of a text are: UTF-8 code points, or plain bytes, which work for any file.
enum class TextMode : std::uint8_t { utf8, bytes };

/// The content of a file or pipe. In mode `utf8` a leading byte order mark is skipped. Throws
/// FileError if it is missing, unreadable, empty, a directory or a device, or does not fit in
/// memory; in mode `utf8` also if it is UTF-16 or UTF-32, contains a NUL byte or is not well-formed
/// UTF-8 (RFC 3629), naming the offset.
std::string read_text(const std::filesystem::path& path, TextMode mode = TextMode::utf8);

/// A symbol formatted for a message: "'é' (U+00E9)", "U+0007", "0xFF".
std::string name_of(char32_t symbol, TextMode mode);

/// The distinct symbols of a text in ascending order. The token of a symbol is its rank among them.
class Vocabulary {
 public:
  /// The symbols that occur in `text`. Throws ValueError if it is empty, or not UTF-8 in mode
  /// `utf8`.
  Vocabulary(std::string_view text, TextMode mode, Site site = {});
  /// The symbols that `symbols()` of another vocabulary returned. Throws ValueError unless there is
  /// at least one, they are in ascending order, and all are code points (or bytes).
  Vocabulary(std::vector<char32_t> symbols, TextMode mode, Site site = {});

  Index size() const { return static_cast<Index>(symbols_.size()); }
  TextMode mode() const { return mode_; }
  const std::vector<char32_t>& symbols() const { return symbols_; }

  /// The tokens of a text, each in 0 .. size() - 1. Throws ValueError naming the first symbol that
  /// is not in the vocabulary and its byte offset.
  std::vector<std::int32_t> encode(std::string_view text, Site site = {}) const;
  /// The text of a sequence of tokens. Throws ValueError for one outside 0 .. size() - 1.
  std::string decode(std::span<const std::int32_t> tokens, Site site = {}) const;

  bool operator==(const Vocabulary&) const = default;

 private:
  std::vector<char32_t> symbols_;
  TextMode mode_;
};

}  // namespace reel::datasets
