#pragma once

#include <chrono>
#include <string_view>

#include "metrics.h"
#include "samples.h"
#include "terminal.h"
#include "words.h"

namespace reel::char_lm {

/// How far a training is, for a progress line.
struct Position {
  Index step = 0, steps = 0;
  int epoch = 0, epochs = 0;
  double lr = 0;
  std::string_view unit = "char";  ///< what is counted: Unit::brief
};

/// What `train` prints: text for people, its last line alone, or lines of JSON; within a search the
/// redrawn line alone, or nothing.
enum class LogKind { text, quiet, json, redrawn, none };

/// What `train` prints on standard output. As text a line for each epoch; in addition, on a
/// terminal a line that is redrawn, elsewhere one every 100 steps. As JSON the lines of
/// metrics.jsonl and samples.jsonl, and a last one.
class TrainingLog {
 public:
  explicit TrainingLog(LogKind kind) : kind_(kind), terminal_(stdout) {}

  void note(std::string_view text);
  /// After each step; the refresh rate is limited.
  void step(const Position& position, double loss, double chars_per_s, double seconds_left);
  /// After 100 steps.
  void hundred(const Position& position, const Metrics& metrics, double seconds_left);
  void epoch(const Position& position, const Metrics& metrics);
  void sample(const Sample& sample);
  /// The last line, except as text: how the training ended, `json` in an object.
  void end(std::string_view quiet, std::string_view json);

 private:
  using Clock = std::chrono::steady_clock;

  LogKind kind_;
  Terminal terminal_;
  Clock::time_point next_draw_{};
};

/// "12 s", "3 min 05 s", "2 h 07 min".
std::string duration(double seconds);
/// "121,000": rounded to 3 significant digits, for people.
std::string about(double number);

}  // namespace reel::char_lm
