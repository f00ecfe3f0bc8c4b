#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/shape.h>
#include <reel/nn/files/file.h>
#include <reel/nn/files/location.h>

namespace reel::char_lm {

/// How often values occur between limits, as TensorBoard takes it.
struct ValueCounts {
  double least = 0, largest = 0, count = 0, sum = 0, sum_of_squares = 0;
  std::vector<double> limits = {};  ///< the upper ends of the bins
  std::vector<double> counts = {};
};
/// The values in `bins` bins of equal width from the least to the largest.
ValueCounts count_values(std::span<const double> values, std::size_t bins = 30);

/// A file of events for TensorBoard: records framed as in TFRecord, each an Event of
/// tensorflow/core/util/event.proto. All writers throw FileError.
class EventFile {
 public:
  /// Creates the file, which tells the reader to forget what earlier ones have of steps after
  /// `last_step` (a SessionLog of status START).
  EventFile(const nn::Location& where, Index last_step);

  void scalar(std::string_view tag, Index step, double value);
  void histogram(std::string_view tag, Index step, const ValueCounts& counts);
  void text(std::string_view tag, Index step, std::string_view text);

 private:
  void add_value(Index step, std::string_view value);
  void add_record(std::string_view record);

  nn::File file_;
};

}  // namespace reel::char_lm
