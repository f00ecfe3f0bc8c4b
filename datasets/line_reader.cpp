#include <reel/datasets/line_reader.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/datasets/text.h>
#include <reel/nn/files/location.h>

namespace reel::datasets {

LineReader::LineReader(const std::filesystem::path& path) : path_(path), text_(read_text(path)) {}

Index LineReader::read_title(std::string_view name, Index least, Index most) {
  next();
  const std::string begin = fmt::format("{} ", name);
  const auto count =
      line_.starts_with(begin) ? whole_number(line_.substr(begin.size())) : std::nullopt;
  if (!count || *count < least || *count > most)
    fail(fmt::format("not \"{} N\" with N in {} .. {}", name, least, most));
  return *count;
}

bool LineReader::next() {
  if (offset_ == text_.size()) return false;
  const std::size_t end = std::min(text_.find('\n', offset_), text_.size());
  line_ = std::string_view(text_).substr(offset_, end - offset_);
  if (line_.ends_with('\r') && end < text_.size()) line_.remove_suffix(1);
  offset_ = std::min(end + 1, text_.size());
  ++number_;
  return true;
}

void LineReader::fail(std::string_view what) const {
  fail_file(fmt::format("line {}: {}", number_, what));
}

void LineReader::fail(std::size_t column, std::string_view name, std::string_view what) const {
  const std::string named = name.empty() ? "" : fmt::format(" ({})", printable(name, 40));
  fail_file(fmt::format("line {}, column {}{}: {}", number_, column, named, what));
}

void LineReader::fail_file(std::string_view what) const {
  throw FileError(fmt::format("{}: {}", nn::Location(path_).str(), what));
}

std::vector<std::string_view> fields_of(std::string_view line, char separator) {
  std::vector<std::string_view> fields;
  while (true) {
    const std::size_t end = line.find(separator);
    fields.push_back(line.substr(0, end));
    if (end == std::string_view::npos) return fields;
    line.remove_prefix(end + 1);
  }
}

std::optional<Index> whole_number(std::string_view text) {
  Index number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_plain =
      !text.empty() && text[0] >= '0' && text[0] <= '9' && (text[0] != '0' || text.size() == 1);
  if (error != std::errc() || stop != text.data() + text.size() || !is_plain ||
      number > Index{1} << 53)
    return std::nullopt;
  return number;
}

}  // namespace reel::datasets
