#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/engine/table.h>
#include <reel/autograd/message.h>

#include "commands.h"
#include "output.h"
#include "progress.h"
#include "report.h"
#include "run_directory.h"

namespace reel::char_lm {
namespace {

double norm_of(const Tensor& x) {
  double sum = 0;
  for (double value : x.to_vector()) sum += value * value;
  return std::sqrt(sum);
}

std::string configuration(const RunConfig& config) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<16}{}\n", name, printable(value));
  };
  each_setting(config.settings, [&](const Setting& setting, const auto& value) {
    line(setting.name, fmt::format("{}", value));
  });
  line("text", fmt::format("{} ({})", config.text.description(),
                           counted(static_cast<Index>(config.text.bytes), "byte")));
  line("vocabulary", counted(config.vocabulary.size(), "symbol"));
  return text;
}

std::string training(const Progress& at, const RunConfig& config) {
  std::string text = fmt::format("{:<16}step {}, {} of {} epochs\n", "trained", at.step,
                                 at.epoch - 1, config.settings.epochs);
  if (at.best_epoch > 0)
    text += fmt::format("{:<16}{:.4f} nats/char, after epoch {}\n", "best validation", at.best_loss,
                        at.best_epoch);
  return text;
}

std::string table(const nn::NamedTensors& params) {
  Table table({"name", "shape", "count", "norm"});
  Index total = 0;
  for (const auto& [name, value] : params.tensors) {
    table.add(
        {name, value.shape().str(), grouped(value.size()), fmt::format("{:.4f}", norm_of(value))});
    total += value.size();
  }
  table.add({"total", "", grouped(total), ""});
  return table.str();
}

}  // namespace

int info(const InfoOptions& options) {
  const RunDirectory run(options.run);
  const RunConfig config = run.read_config();
  const optim::RunState checkpoint = run.load(config);
  const Progress at = run.explain([&] { return progress_of(checkpoint); });
  print(configuration(config) + training(at, config) + '\n' + table(checkpoint.params));
  return 0;
}

}  // namespace reel::char_lm
