#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

namespace reel::examples {

/// The series that `generated_series` has.
inline const std::vector<std::string> generated_names{"seasonal", "chaotic"};

/// One of two series [10000, 1]. seasonal: weeks of 7 days of 8 steps, of which two are quiet, with
/// a trend and noise. chaotic: x' = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x (Mackey and Glass,
/// "Oscillation and chaos in physiological control systems", 1977), a step for three units of time,
/// with noise.
Tensor generated_series(std::string_view name, Rng& rng);

/// A column of a table [N, 1]. Throws what datasets::read_series throws, and ValueError if no name
/// is given and there are several.
Tensor read_column(const std::string& path, const std::string& column);

/// Windows of a series, and what follows each.
struct SeriesWindows {
  Tensor past;    // [T, B, D]
  Tensor future;  // [horizon, B, D]
};

/// The windows of T steps whose future lies in [begin, end) of a series [N, D].
class SeriesPart {
 public:
  /// Throws ValueError, with a remedy, unless there are at least 20 of them.
  SeriesPart(Tensor series, Index begin, Index end, Index window, Index horizon);

  Index count() const { return end_ - begin_ - horizon_ + 1; }
  /// All, or so many that are evenly spread.
  SeriesWindows spread(Index most) const;
  SeriesWindows draw(Index rows, Rng& rng) const;

 private:
  SeriesWindows at(const std::vector<std::int32_t>& places) const;

  Tensor series_;
  Index begin_, end_, window_, horizon_;
};

}  // namespace reel::examples
