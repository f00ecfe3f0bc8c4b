#include <reel/autograd/message.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include <reel/autograd/edit_distance.h>
#include <reel/autograd/utf8.h>

namespace reel {
namespace {

std::string escape(char32_t c) {
  const auto number = static_cast<std::uint32_t>(c);
  if (c == '\n') return "\\n";
  if (c == '\t') return "\\t";
  return number < 0x10000 ? fmt::format("\\u{:04x}", number) : fmt::format("\\U{:08x}", number);
}

constexpr std::size_t longest_name = 80;  // in a message

}  // namespace

bool is_printable(char32_t c) {
  constexpr std::pair<char32_t, char32_t> hidden[] = {
      {0x00, 0x1F},     {0x7F, 0x9F},     {0xAD, 0xAD},      {0x61C, 0x61C},
      {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F},  {0xFEFF, 0xFEFF},
      {0xFFF9, 0xFFFB}, {0xFFFE, 0xFFFF}, {0xE0000, 0xE0FFF}};
  return std::ranges::none_of(
      hidden, [&](const auto& range) { return range.first <= c && c <= range.second; });
}

std::string printable(std::string_view text, std::size_t limit) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto [value, length] = utf8::symbol_at(text, i);
    const std::size_t step = std::max<std::size_t>(length, 1);
    if (i + step > limit) return result + "...";
    if (length == 0)
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    else if (is_printable(value))
      result += text.substr(i, length);
    else
      result += escape(value);
    i += step;
  }
  return result;
}

std::string in_quotes(std::string_view text) {
  std::string escaped;
  for (char c : text.substr(0, longest_name + 4)) {  // one symbol more than is shown
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return '"' + printable(escaped, longest_name) + '"';
}

std::string place_in(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const std::size_t newline = before.rfind('\n');
  return fmt::format("line {}, column {}", std::ranges::count(before, '\n') + 1,
                     newline == std::string_view::npos ? offset + 1 : offset - newline);
}

std::string listed(const std::vector<std::string>& names, std::size_t shown) {
  const std::size_t count = std::min(names.size(), shown);
  std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + count, ", "));
  if (names.size() > count) text += fmt::format(" and {} more", names.size() - count);
  return text;
}

std::optional<std::string> nearest(std::string_view wanted, const std::vector<std::string>& names) {
  std::size_t least = wanted.size() / 2 + 1;  // further away is another name
  const std::string* found = nullptr;
  for (const std::string& name : names) {
    const std::size_t lengths_differ =
        std::max(name.size(), wanted.size()) - std::min(name.size(), wanted.size());
    if (lengths_differ >= least) continue;  // a file's names may be long and many
    const auto away = static_cast<std::size_t>(edit_distance(name, wanted));
    if (away >= least) continue;
    least = away;
    found = &name;
  }
  return found ? std::optional(*found) : std::nullopt;
}

std::string suggestion(std::string_view wanted, const std::vector<std::string>& names) {
  constexpr std::size_t shown = 12;
  if (names.empty()) return "; there are none";
  const auto meant = nearest(wanted, names);
  std::string text =
      meant ? fmt::format("; did you mean {}? There are: ", printable(*meant, longest_name))
            : "; there are: ";
  std::vector<std::string> clean(names.size());
  for (std::size_t i = 0; i < std::min(names.size(), shown); ++i)
    clean[i] = printable(names[i], longest_name);
  return text + listed(clean, shown);
}

}  // namespace reel
