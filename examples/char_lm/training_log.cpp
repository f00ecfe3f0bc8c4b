#include "training_log.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "../support/system.h"
#include "machine.h"

namespace reel::char_lm {
namespace {

// The parts of the redrawn line; on a narrow terminal the last ones are omitted entirely.
std::string fitting(const std::vector<std::string>& parts, int width) {
  std::string line = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) {
    if (line.size() + 2 + parts[i].size() >= static_cast<std::size_t>(width)) break;
    line += "  " + parts[i];
  }
  return line;
}

std::vector<std::string> parts_of(const Position& at, double loss, double chars_per_s,
                                  double seconds_left) {
  const examples::MemoryUse memory = examples::memory_use();
  return {fmt::format("epoch {}/{}", at.epoch, at.epochs),
          fmt::format("step {:>{}}/{}", at.step, fmt::formatted_size("{}", at.steps), at.steps),
          fmt::format("loss {:.3f}", loss),
          fmt::format("{} {}s/s", about(chars_per_s), at.unit),
          fmt::format("{} left", duration(seconds_left)),
          fmt::format("rate {:.3g}", at.lr),
          fmt::format("memory {:.0f} MB, peak {:.0f}", memory.now, memory.peak)};
}

// A line of a file without its newline.
std::string_view without_newline(std::string_view line) { return line.substr(0, line.size() - 1); }

}  // namespace

void TrainingLog::note(std::string_view text) {
  if (kind_ == LogKind::text) terminal_.line(text);
}

void TrainingLog::step(const Position& position, double loss, double chars_per_s,
                       double seconds_left) {
  using namespace std::chrono_literals;
  if ((kind_ != LogKind::text && kind_ != LogKind::redrawn) || !terminal_.redraws()) return;
  const auto now = Clock::now();
  if (now < next_draw_) return;
  next_draw_ = now + 100ms;
  terminal_.redraw(fitting(parts_of(position, loss, chars_per_s, seconds_left), terminal_.width()));
}

void TrainingLog::hundred(const Position& position, const Metrics& metrics, double seconds_left) {
  if (kind_ == LogKind::json) terminal_.raw_line(without_newline(json_line(metrics)));
  if (kind_ != LogKind::text || terminal_.redraws()) return;
  note(fmt::format(
      "{}",
      fmt::join(parts_of(position, metrics.train_loss, metrics.chars_per_s, seconds_left), "  ")));
}

void TrainingLog::epoch(const Position& position, const Metrics& metrics) {
  if (kind_ == LogKind::json) terminal_.raw_line(without_newline(json_line(metrics)));
  std::string line = fmt::format("epoch {:>{}}/{}", position.epoch,
                                 fmt::formatted_size("{}", position.epochs), position.epochs);
  line += fmt::format("  train {:.4f}", metrics.train_loss);
  if (metrics.valid_loss) line += fmt::format("  valid {:.4f}", *metrics.valid_loss);
  note(line + fmt::format("  {} {}s/s  {}", about(metrics.chars_per_s), position.unit,
                          duration(metrics.elapsed_s)));
}

void TrainingLog::sample(const Sample& sample) {
  if (kind_ == LogKind::json) terminal_.raw_line(without_newline(json_line(sample)));
  note(fmt::format("sample after step {}:", sample.step));
  std::string_view rest = sample.text;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    note(fmt::format("  {}", rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

void TrainingLog::end(std::string_view quiet, std::string_view json) {
  if (kind_ == LogKind::json) terminal_.raw_line(json);
  if (kind_ == LogKind::quiet) terminal_.line(quiet);
}

std::string duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const auto s = static_cast<Index>(std::ceil(seconds));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
}

std::string about(double number) {
  if (!(number >= 1 && number < 1e15)) return "0";
  const double unit = std::pow(10, std::max(0.0, std::floor(std::log10(number)) - 2));
  return grouped(static_cast<Index>(std::round(number / unit) * unit));
}

}  // namespace reel::char_lm
