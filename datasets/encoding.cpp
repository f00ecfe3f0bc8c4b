#include <reel/datasets/encoding.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <vector>

#include <reel/autograd/utf8.h>

namespace reel::datasets {
namespace {

using Units = std::vector<std::uint32_t>;

Units units_of(std::string_view bytes, std::size_t width, bool big_endian) {
  Units units(bytes.size() / width);
  for (std::size_t i = 0; i < units.size(); ++i)
    for (std::size_t k = 0; k < width; ++k)
      units[i] = units[i] << 8 |
                 static_cast<unsigned char>(bytes[i * width + (big_endian ? k : width - 1 - k)]);
  return units;
}

bool is_space(std::uint32_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Control characters that ordinary text in no encoding has.
bool is_control(std::uint32_t c) { return c < 0x20 && !is_space(c) && c != 0x1B; }

bool is_ascii(std::uint32_t c) { return is_space(c) || (c > ' ' && c < 0x7F); }

// Whether nearly all of the characters are ordinary: no control characters, private or rare
// ones, and no noncharacters. A few may be among them.
bool are_ordinary(const Units& characters) {
  const auto odd = std::ranges::count_if(characters, [](std::uint32_t c) {
    return is_control(c) || (c >= 0x7F && c < 0xA0 && c != 0x85) || (c >= 0xE000 && c < 0xF900) ||
           (c & 0xFFFE) == 0xFFFE || c >= 0x20000;
  });
  return static_cast<std::size_t>(odd) * 50 <= characters.size();
}

bool is_utf32(const Units& units) {
  return units.size() >= 2 &&
         std::ranges::none_of(units,
                              [](std::uint32_t c) {
                                return c == 0 || c > utf8::last_code_point || utf8::is_surrogate(c);
                              }) &&
         are_ordinary(units);
}

// The last symbol may have been cut off.
bool is_utf8(std::string_view bytes) {
  std::size_t offset = 0;
  while (offset < bytes.size()) {
    const utf8::Symbol symbol = utf8::symbol_at(bytes, offset);
    if (symbol.length == 0) break;
    offset += symbol.length;
  }
  return offset + 4 > bytes.size();
}

// Whether each surrogate has its partner; that of the last one may have been cut off.
bool are_paired(const Units& units) {
  for (std::size_t i = 0; i < units.size(); ++i) {
    if (!utf8::is_surrogate(units[i])) continue;
    if (units[i] >= 0xDC00) return false;
    if (++i < units.size() && units[i] >> 10 != 0xDC00 >> 10) return false;
  }
  return true;
}

// A number for the alphabet of a UTF-16 unit: its high byte, except that Chinese characters, kana
// and Korean syllables with their punctuation have many of them.
std::uint32_t alphabet_of(std::uint32_t unit) {
  const std::uint32_t high = unit >> 8;
  const bool is_chinese =
      (high >= 0x30 && high < 0x32) || (high >= 0x4E && high < 0xA0) || high == 0xFF;
  const bool is_korean = high >= 0xAC && high < 0xD8;
  return is_chinese ? 0x4E : is_korean ? 0xAC : high;
}

std::uint32_t swapped(std::uint32_t unit) { return unit >> 8 | (unit & 0xFF) << 8; }

std::uint32_t high_byte(std::uint32_t unit) { return unit >> 8; }

// How many of the units are in the alphabet that most are in; likewise for the high bytes.
template <class F>
std::size_t most_alike(const Units& units, F of) {
  std::array<std::size_t, 256> counts{};
  for (const std::uint32_t unit : units) ++counts[of(unit)];
  return std::ranges::max(counts);
}

// Whether most units are in one alphabet, and clearly more than with their bytes exchanged.
bool have_an_alphabet(const Units& units) {
  Units exchanged;
  std::ranges::transform(units, std::back_inserter(exchanged), swapped);
  const std::size_t alike = most_alike(units, alphabet_of);
  return alike * 4 >= units.size() * 3 &&
         (alike >= most_alike(exchanged, alphabet_of) + units.size() / 8 ||
          most_alike(units, high_byte) >= 2 * most_alike(exchanged, high_byte));
}

// Whether bytes are UTF-16, most of it not ASCII, and neither a text of bytes nor a binary file.
// Most units are in one alphabet, but would not be with their bytes exchanged, as those of a text
// of bytes. And control characters are among its bytes, as among those of no text of bytes.
bool is_foreign_utf16(std::string_view bytes, const Units& units) {
  constexpr std::size_t least = 8;  // fewer prove nothing
  const auto count = [](const auto& in, auto&& is) {
    return static_cast<std::size_t>(std::ranges::count_if(in, is));
  };
  if (units.size() < least) return false;
  if (count(units, [](auto c) { return (c & 0xFF) == 0; }) * 8 > units.size()) return false;

  Units foreign;
  std::ranges::copy_if(units, std::back_inserter(foreign),
                       [](auto c) { return !is_ascii(c) && !utf8::is_surrogate(c); });
  if (!have_an_alphabet(foreign)) return false;

  const auto of_kana = count(units, [](auto c) { return c >> 8 == 0x30; });
  if (of_kana * 2 >= units.size() && !is_utf8(bytes)) return true;
  const auto controls =
      count(units, [](auto c) { return is_control(c >> 8) || is_control(c & 0xFF); });
  const auto printable =
      count(bytes, [](char c) { return is_ascii(static_cast<unsigned char>(c)); });
  const bool has_nul = bytes.find('\0') != std::string_view::npos;
  return controls * 32 >= units.size() && (has_nul || printable * 4 <= bytes.size() * 3);
}

bool is_utf16(std::string_view bytes, const Units& units) {
  if (units.size() < 2 || std::ranges::find(units, 0u) != units.end()) return false;
  if (!are_paired(units) || !are_ordinary(units)) return false;
  const auto ascii = static_cast<std::size_t>(std::ranges::count_if(units, is_ascii));
  return ascii * 2 > units.size() || is_foreign_utf16(bytes, units);
}

}  // namespace

const char* encoding_of_units(std::string_view content) {
  using namespace std::string_view_literals;
  const auto begins = [&](std::string_view mark) { return content.starts_with(mark); };
  if (begins("\xFF\xFE\0\0"sv) || begins("\0\0\xFE\xFF"sv)) return "UTF-32";
  if (begins("\xFF\xFE") || begins("\xFE\xFF")) return "UTF-16";

  content = content.substr(0, 4096);
  if (is_utf32(units_of(content, 4, false))) return "UTF-32LE";
  if (is_utf32(units_of(content, 4, true))) return "UTF-32BE";
  if (is_utf16(content, units_of(content, 2, false))) return "UTF-16LE";
  if (is_utf16(content, units_of(content, 2, true))) return "UTF-16BE";
  return nullptr;
}

}  // namespace reel::datasets
