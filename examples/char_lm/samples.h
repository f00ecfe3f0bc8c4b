#pragma once

#include <functional>
#include <string>

#include <reel/autograd/shape.h>
#include <reel/nn/files/location.h>

namespace reel::char_lm {

/// What a model wrote after a step of its training. The text is UTF-8; at level byte a byte is
/// the code point of its number.
struct Sample {
  Index step = 0;
  int epoch = 0;  ///< counted from 1
  std::string text;
};

/// The line of samples.jsonl, with its newline.
std::string json_line(const Sample& sample);

/// Calls f with each line of a samples.jsonl, in order. Throws FileError with the line that is
/// damaged.
void each_sample(const nn::Location& where, const std::function<void(Sample)>& f);

/// The file samples.jsonl: one JSON object per line.
class SamplesFile {
 public:
  /// Keeps the lines up to a step and drops the rest; the file may be missing. Throws FileError,
  /// also if one of those lines is damaged.
  SamplesFile(const nn::Location& where, Index last_step);

  /// Appends a line. Throws FileError, having added nothing.
  void append(const Sample& sample);
  /// The step of the last line; 0 without one.
  Index step() const { return step_; }

 private:
  nn::Location where_;
  Index step_ = 0;
};

}  // namespace reel::char_lm
