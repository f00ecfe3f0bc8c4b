#include "reported_run.h"

#include <algorithm>
#include <optional>

#include "../support/spread.h"
#include "model.h"

namespace reel::char_lm {
namespace {

// Of "runs/first/" it is "first".
std::string name_of(const RunDirectory& run) {
  std::error_code error;
  auto path = std::filesystem::absolute(run.path(), error).lexically_normal();
  if (error) path = run.path();
  if (!path.has_filename()) path = path.parent_path();
  return path.has_filename() ? path.filename().string() : path.string();
}

// Member by member: GCC 12 warns of a copy whose diagnosis is reset.
Metrics without_diagnosis(const Metrics& line) {
  return {.step = line.step,
          .epoch = line.epoch,
          .train_loss = line.train_loss,
          .valid_loss = line.valid_loss,
          .lr = line.lr,
          .grad_norm = line.grad_norm,
          .chars_per_s = line.chars_per_s,
          .elapsed_s = line.elapsed_s,
          .clip = line.clip,
          .skipped = line.skipped};
}

// Without the gradients through time, which make lines long.
Metrics shortened(Metrics line) {
  for (nn::LayerReport& layer : line.diagnosis->layers) {
    layer.gradient_norms = {};
    layer.jacobian_norms.resize(std::min<std::size_t>(layer.jacobian_norms.size(), 4));
  }
  return line;
}

void read_metrics(const RunDirectory& run, ReportedRun& read) {
  html::Spread<Metrics> hundreds(2000), epochs(2000), diagnosed(100);
  std::optional<Diagnosis> last;
  Index before = 0;
  each_metrics(run.metrics_file(), [&](const Metrics& line) {
    if (line.diagnosis) {
      last = line.diagnosis;
      diagnosed.add(shortened(line));
    }
    // An epoch may end after a hundredth step: its line is then the second of that step.
    const bool is_epoch = line.step % 100 != 0 || line.step == before;
    before = line.step;
    (is_epoch ? epochs : hundreds).add(without_diagnosis(line));
  });
  read.hundreds = hundreds.elements();
  read.epochs = epochs.elements();
  read.diagnosed = diagnosed.elements();
  if (last) read.diagnosed.back().diagnosis = last;
}

}  // namespace

std::string unit_name(const std::vector<ReportedRun>& runs) {
  const auto level_of = [](const ReportedRun& run) { return run.config.settings.level; };
  const std::string level = level_of(runs.front());
  const bool is_the_same =
      std::ranges::all_of(runs, [&](const ReportedRun& run) { return level_of(run) == level; });
  return is_the_same ? std::string(unit_of(level).name) : "symbol";
}

ReportedRun reported_run(const RunDirectory& run, const RunConfig& config, const Progress& progress,
                         const nn::NamedTensors& params) {
  ReportedRun read{.name = name_of(run), .config = config, .progress = progress};
  for (const auto& [name, value] : params.tensors)
    read.parameters.push_back({name, value.shape().str(), value.size(), norm_of(value)});
  read.starts = read_starts(run.machines_file());
  read_metrics(run, read);
  html::Spread<Sample> samples(10);
  each_sample(run.samples_file(), [&](Sample sample) { samples.add(std::move(sample)); });
  read.samples = samples.elements();
  read.sample_count = static_cast<Index>(samples.count());
  return read;
}

ReportedRun reported_run(const RunDirectory& run) {
  const RunConfig config = run.read_config();
  const optim::RunState checkpoint = run.load(config, run.model_file());
  return reported_run(run, config, progress_of(checkpoint), checkpoint.params);
}

}  // namespace reel::char_lm
