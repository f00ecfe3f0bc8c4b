#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <reel/autograd/tensor.h>

namespace reel::datasets {

/// The options of read_series.
struct SeriesOptions {
  char separator = ',';
  bool header = true;  ///< whether the first line has the names of the columns
  /// The columns to read, by name and in this order; all if empty. Others, such as dates, need not
  /// be numbers.
  std::vector<std::string> columns = {};
  DType dtype = f32;
};

/// A series of measurements: values [T, D], and the names of the D columns ("0", "1" ... without a
/// header).
struct Series {
  Tensor values;
  std::vector<std::string> columns;
};

/// Reads a table of numbers (CSV, RFC 4180): a line for each time step, LF or CRLF, fields between
/// separators. Fields may be in quotes, a quote in them doubled, but not reach over the end of a
/// line; spaces around them are skipped. Throws FileError naming line and column for what is
/// missing, not a number, not finite in the dtype, or a line with another number of columns; and
/// ValueError for options that make no sense.
Series read_series(const std::filesystem::path& path, const SeriesOptions& options = {},
                   Site site = {});

}  // namespace reel::datasets
