#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// UTF-8 (RFC 3629), one code point at a time.
namespace reel::utf8 {

constexpr char32_t last_code_point = 0x10FFFF;
constexpr bool is_surrogate(char32_t c) { return c >= 0xD800 && c <= 0xDFFF; }

/// A code point and its length in bytes: 0 if the text is malformed.
struct Symbol {
  char32_t value = 0;
  std::size_t length = 0;
};

/// The symbol that begins at `offset`, which must be less than the size.
Symbol symbol_at(std::string_view text, std::size_t offset);
/// Appends a code point to a text.
void append(std::string& text, char32_t c);

}  // namespace reel::utf8
