#include "metrics.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include <reel/nn/files/file.h>

#include "json_lines.h"

namespace reel::char_lm {
namespace {

// Four digits tell enough, and keep lines short; null if it is not finite.
double rounded(double x) { return std::strtod(fmt::format("{:.4g}", x).c_str(), nullptr); }

Json rounded(const std::vector<double>& numbers) {
  Json all = Json::array();
  for (const double x : numbers) all.push_back(rounded(x));
  return all;
}

Json json_of(const nn::LayerReport& layer) {
  Json of_layer{{"name", layer.name},
                {"gradient_norms", rounded(layer.gradient_norms)},
                {"jacobian_norms", rounded(layer.jacobian_norms)}};
  if (const auto& tau = layer.time_constants)
    of_layer["time_constants"] = Json{
        {"p5", rounded(tau->p5)}, {"median", rounded(tau->median)}, {"p95", rounded(tau->p95)}};
  of_layer["gates"] = Json::array();
  for (const nn::GateReport& gate : layer.gates)
    of_layer["gates"].push_back(Json{{"name", gate.name},
                                     {"saturated", rounded(gate.saturated)},
                                     {"histogram", gate.histogram}});
  return of_layer;
}

Json json_of(const Diagnosis& diagnosis) {
  Json all;
  all["layers"] = Json::array();
  for (const nn::LayerReport& layer : diagnosis.layers) all["layers"].push_back(json_of(layer));
  return all;
}

// Unknown or damaged lines count as zero time, and so do times longer than 30 years. What is nested
// is not kept: of a million brackets the library would build a million values.
double elapsed_in(std::string_view line) {
  const auto kept = [](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) {
    return depth <= 1;
  };
  const auto parsed = nlohmann::json::parse(line, kept, false);
  const auto elapsed = parsed.is_object() ? parsed.find("elapsed_s") : parsed.end();
  const double seconds =
      elapsed != parsed.end() && elapsed->is_number() ? elapsed->get<double>() : 0;
  return seconds >= 0 && seconds < 1e9 ? seconds : 0;
}

// Where the kept lines of a file end, and where the last of them begins.
struct Kept {
  std::uint64_t end = 0, last = 0;
};

Kept find_lines(nn::File& file, Index lines) {
  Kept kept;
  std::array<char, 1 << 14> chunk;
  std::uint64_t offset = 0;
  while (lines > 0) {
    const std::size_t count = file.read(std::as_writable_bytes(std::span(chunk)));
    for (std::size_t i = 0; i < count && lines > 0; ++i)
      if (chunk[i] == '\n') {
        kept = {.end = offset + i + 1, .last = kept.end};
        --lines;
      }
    offset += count;
    if (count < chunk.size()) break;
  }
  return kept;
}

std::string line_at(nn::File& file, const Kept& kept) {
  constexpr std::uint64_t longest = 1 << 24;  // ours are a fraction of it even with a diagnosis
  if (kept.end - kept.last > longest) return {};
  std::string line(kept.end - kept.last, '\0');
  file.seek(kept.last);
  line.resize(file.read(std::as_writable_bytes(std::span(line))));
  return line;
}

}  // namespace

std::string json_line(const Metrics& m) {
  Json line;
  line["step"] = m.step;
  line["epoch"] = m.epoch;
  line["train_loss"] = m.train_loss;
  if (m.valid_loss) line["valid_loss"] = *m.valid_loss;
  line["lr"] = m.lr;
  line["grad_norm"] = m.grad_norm;
  line["chars_per_s"] = std::llround(m.chars_per_s);
  line["elapsed_s"] = std::round(m.elapsed_s * 1000) / 1000;
  if (const auto& clip = m.clip)
    line["clip"] = Json{{"steps", clip->steps},
                        {"clipped", clip->clipped},
                        {"mean_norm", rounded(clip->mean_norm)},
                        {"largest_norm", rounded(clip->largest_norm)}};
  if (m.skipped > 0) line["skipped"] = m.skipped;
  if (m.diagnosis) line["diagnostics"] = json_of(*m.diagnosis);
  return line.dump() + '\n';
}

MetricsFile::MetricsFile(const nn::Location& where, Index lines) : where_(where) {
  if (!where.exists()) return;
  nn::File file = nn::File::regular(where, O_RDONLY);
  const Kept kept = find_lines(file, lines);
  elapsed_s_ = elapsed_in(line_at(file, kept));
  cut_off(where, kept.end);
}

void MetricsFile::append(const Metrics& metrics) {
  append_line(where_, json_line(metrics));
  elapsed_s_ = metrics.elapsed_s;
}

}  // namespace reel::char_lm
