#include "tensorboard.h"

#include <fmt/format.h>

namespace reel::char_lm {
namespace {

// The report has the counts alone: the values count as the middles of their bins.
ValueCounts counts_of(const nn::GateReport& gate) {
  ValueCounts found{.least = gate.lowest, .largest = 1};
  const double width = (1 - gate.lowest) / static_cast<double>(gate.histogram.size());
  for (const Index in_bin : gate.histogram) {
    const double low = gate.lowest + width * static_cast<double>(found.limits.size());
    const double middle = low + width / 2, count = static_cast<double>(in_bin);
    found.limits.push_back(low + width);
    found.counts.push_back(count);
    found.count += count;
    found.sum += count * middle;
    found.sum_of_squares += count * middle * middle;
  }
  return found;
}

}  // namespace

void TensorBoard::metrics(const Metrics& line, bool is_epoch) {
  if (is_epoch) {
    events_.scalar("epoch/train_loss", line.step, line.train_loss);
    if (line.valid_loss) events_.scalar("epoch/valid_loss", line.step, *line.valid_loss);
  } else {
    events_.scalar("steps/train_loss", line.step, line.train_loss);
    events_.scalar("steps/lr", line.step, line.lr);
    events_.scalar("steps/grad_norm", line.step, line.grad_norm);
    if (line.clip) events_.scalar("steps/clipped", line.step, line.clip->share());
    events_.scalar("steps/chars_per_s", line.step, line.chars_per_s);
  }
  if (line.diagnosis)
    for (const nn::LayerReport& report : line.diagnosis->layers) layer(line.step, report);
}

void TensorBoard::layer(Index step, const nn::LayerReport& layer) {
  for (const nn::GateReport& gate : layer.gates) {
    events_.histogram("gates/" + layer.name + "/" + gate.name, step, counts_of(gate));
    events_.scalar("saturated/" + layer.name + "/" + gate.name, step, gate.saturated);
  }
  if (layer.gradient_norms.empty()) return;
  events_.scalar("gradient/" + layer.name + "/first_time_step", step, layer.gradient_norms.front());
  events_.scalar("gradient/" + layer.name + "/last_time_step", step, layer.gradient_norms.back());
}

void TensorBoard::histograms(std::string_view kind, Index step, const nn::NamedTensors& tensors) {
  for (const auto& [name, value] : tensors.tensors)
    events_.histogram(fmt::format("{}{}", kind, name), step, count_values(value.to_vector()));
}

// It is shown as Markdown, in which indented lines are taken as they are.
void TensorBoard::sample(const Sample& sample) {
  std::string text = "    ";
  for (const char c : sample.text) text += c == '\n' ? "\n    " : std::string(1, c);
  events_.text("sample", sample.step, text);
}

}  // namespace reel::char_lm
