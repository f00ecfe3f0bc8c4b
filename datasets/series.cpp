#include <reel/datasets/series.h>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/datasets/line_reader.h>

namespace reel::datasets {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t";
  text.remove_prefix(std::min(text.find_first_not_of(spaces), text.size()));
  return text.substr(0, text.find_last_not_of(spaces) + 1);
}

// A text as a number; a plus sign is accepted as well.
struct Parsed {
  double value = 0;
  bool is_number = false, in_range = false;
};

Parsed parsed(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  Parsed result;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, result.value);
  result.is_number = stop == end && error != std::errc::invalid_argument;
  result.in_range = error == std::errc();
  return result;
}

class Reader {
 public:
  Reader(const std::filesystem::path& path, const SeriesOptions& options, Site site)
      : in_(path), options_(options), site_(site) {}

  Series read() {
    in_.next();
    names_ = names_of(fields());
    choose_columns();
    if (!options_.header) add_step();
    while (in_.next()) {
      if (trimmed(in_.line()).empty()) {
        require_end();
        break;
      }
      add_step();
    }
    const Index steps = std::ssize(values_) / std::ssize(chosen_);
    if (steps == 0) in_.fail_file("there are no numbers in it, only the names of the columns");
    Series series{tensor({steps, std::ssize(chosen_)}, values_, options_.dtype, site_), {}};
    for (const std::size_t column : chosen_) series.columns.push_back(names_[column]);
    return series;
  }

 private:
  // The fields of the line, without quotes and the spaces around them.
  std::vector<std::string> fields() const {
    std::vector<std::string> fields;
    std::string_view rest = in_.line();
    while (true) {
      std::string_view field = rest.substr(0, rest.find(options_.separator));
      if (const std::string_view begin = trimmed_front(rest); begin.starts_with('"')) {
        const std::size_t quoted = quoted_length(begin, fields.size());
        fields.push_back(unquoted(begin.substr(1, quoted - 2)));
        std::string_view after = begin.substr(quoted);
        field = after.substr(0, after.find(options_.separator));
        if (!trimmed(field).empty())
          in_.fail(fields.size(), "", "there is something after the closing quote");
        rest = after;
      } else {
        fields.emplace_back(trimmed(field));
      }
      if (field.size() == rest.size()) return fields;
      rest.remove_prefix(field.size() + 1);
    }
  }

  std::string_view trimmed_front(std::string_view text) const {
    while (!text.empty() && text[0] != options_.separator && (text[0] == ' ' || text[0] == '\t'))
      text.remove_prefix(1);
    return text;
  }

  // Of a text that begins with a quote, the length to the closing one.
  std::size_t quoted_length(std::string_view text, std::size_t column) const {
    for (std::size_t i = 1; i < text.size(); ++i) {
      if (text[i] != '"') continue;
      if (i + 1 == text.size() || text[i + 1] != '"') return i + 1;
      ++i;
    }
    in_.fail(column + 1, "", "the closing quote is missing in this line");
  }

  static std::string unquoted(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
      result += text[i];
      if (text[i] == '"') ++i;  // the second of two
    }
    return result;
  }

  std::vector<std::string> names_of(std::vector<std::string> first) const {
    if (!options_.header) {
      for (std::size_t i = 0; i < first.size(); ++i) first[i] = std::to_string(i);
      return first;
    }
    if (std::ranges::all_of(first, &Parsed::is_number, parsed))
      in_.fail(
          "numbers where the names of the columns have to be; without a header, read it with "
          "{.header = false}");
    std::vector<std::string> sorted = first;
    std::ranges::sort(sorted);
    const auto twice = std::ranges::adjacent_find(sorted);
    if (twice != sorted.end())
      in_.fail(fmt::format("two columns have the name {}", in_quotes(*twice)));
    return first;
  }

  void choose_columns() {
    if (options_.columns.empty()) {
      chosen_.resize(names_.size());
      std::iota(chosen_.begin(), chosen_.end(), std::size_t{0});
    }
    for (const std::string& wanted : options_.columns) {
      const auto found = std::ranges::find(names_, wanted);
      if (found == names_.end())
        in_.fail(
            fmt::format("there is no column {}{}", in_quotes(wanted), suggestion(wanted, names_)));
      chosen_.push_back(static_cast<std::size_t>(found - names_.begin()));
    }
  }

  void add_step() {
    const std::vector<std::string> all = fields();
    if (all.size() != names_.size())
      in_.fail(fmt::format("{} column{}, but line 1 has {}", all.size(), all.size() == 1 ? "" : "s",
                           names_.size()));
    for (const std::size_t column : chosen_) values_.push_back(number(all[column], column));
  }

  double number(const std::string& text, std::size_t column) const {
    const auto fail = [&](std::string_view what) {
      in_.fail(column + 1, options_.header ? names_[column] : "", what);
    };
    std::string lower = text;
    for (char& c : lower)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    for (const char* missing : {"", "na", "n/a", "nan", "null", "none", "?", "-"})
      if (lower == missing)
        fail(fmt::format("the value is missing{}; fill it in or leave the line out",
                         text.empty() ? "" : fmt::format(" ({})", in_quotes(text))));
    const auto [value, is_number, in_range] = parsed(text);
    if (!is_number) fail(fmt::format("{} is not a number", in_quotes(text)));
    const double largest = options_.dtype == f32 ? double{std::numeric_limits<float>::max()}
                                                 : std::numeric_limits<double>::max();
    if (!in_range || !(std::abs(value) <= largest))
      fail(fmt::format("{} is not among the finite numbers of {}", in_quotes(text),
                       name_of(options_.dtype)));
    return value;
  }

  // Only blank lines may follow.
  void require_end() {
    const Index blank = in_.number();
    while (in_.next())
      if (!trimmed(in_.line()).empty())
        in_.fail(fmt::format("numbers after line {}, which is blank", blank));
  }

  LineReader in_;
  const SeriesOptions& options_;
  Site site_;
  std::vector<std::string> names_;   // of all columns
  std::vector<std::size_t> chosen_;  // the columns to read
  std::vector<double> values_;
};

}  // namespace

Series read_series(const std::filesystem::path& path, const SeriesOptions& options, Site site) {
  if (std::string_view("\"\n\r+-.eE0123456789").find(options.separator) != std::string_view::npos)
    throw ValueError(fmt::format("read_series: the separator {} may be in a number or a quote",
                                 in_quotes({&options.separator, 1})),
                     site);
  if (!is_real(options.dtype))
    throw DTypeError("read_series: the numbers are f32 or f64, not i32", site);
  return Reader(path, options, site).read();
}

}  // namespace reel::datasets
