#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/shape.h>

namespace reel::datasets {

/// The lines of a data file in UTF-8, which end in LF or CRLF, the last one perhaps in neither.
class LineReader {
 public:
  /// Throws as read_text does.
  explicit LineReader(const std::filesystem::path& path);

  /// Reads the first line of a saved file, "NAME N" with N entries. Throws FileError if it is
  /// anything else, or N is not in least .. most.
  Index read_title(std::string_view name, Index least, Index most);
  /// Moves on to the next line, at first to the first; returns false at the end.
  bool next();
  std::string_view line() const { return line_; }
  /// Counted from 1.
  Index number() const { return number_; }
  /// Throws FileError: "PATH: line 3: what".
  [[noreturn]] void fail(std::string_view what) const;
  /// Throws FileError: "PATH: line 3, column 2 (name): what". Columns are those of the table.
  [[noreturn]] void fail(std::size_t column, std::string_view name, std::string_view what) const;
  /// Throws FileError: "PATH: what", of the file as a whole.
  [[noreturn]] void fail_file(std::string_view what) const;

 private:
  std::filesystem::path path_;
  std::string text_;
  std::size_t offset_ = 0;
  std::string_view line_;
  Index number_ = 0;
};

/// The fields of a line between separators: at least one, possibly empty.
std::vector<std::string_view> fields_of(std::string_view line, char separator);

/// The number that a text of decimal digits is, without sign or leading zeros; none if it is
/// anything else, or above 2^53.
std::optional<Index> whole_number(std::string_view text);

}  // namespace reel::datasets
