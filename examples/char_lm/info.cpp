#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include <reel/autograd/engine/table.h>
#include <reel/autograd/message.h>

#include "commands.h"
#include "json_lines.h"
#include "model.h"
#include "output.h"
#include "progress.h"
#include "run_directory.h"
#include "training_log.h"
#include "words.h"

namespace reel::char_lm {
namespace {

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
  line("vocabulary", counted(config.vocabulary->size(), "symbol"));
  return text;
}

std::string training(const Progress& at, const RunConfig& config) {
  std::string text = fmt::format("{:<16}step {}, {} of {} epochs\n", "trained", at.step,
                                 at.epoch - 1, config.settings.epochs);
  if (at.skipped > 0) text += fmt::format("{:<16}{}\n", "skipped", counted(at.skipped, "step"));
  if (at.best_epoch > 0)
    text += fmt::format("{:<16}{:.4f} nats/{}, after epoch {}\n", "best validation", at.best_loss,
                        unit_of(config.settings.level).brief, at.best_epoch);
  if (at.is_tested())
    text += fmt::format("{:<16}{:.4f} nats/{}\n", "test", at.test_loss,
                        unit_of(config.settings.level).brief);
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

// The shapes and norms of the table, with the settings under their names in config.json.
Json json_of(const RunConfig& config, const Progress& at, const nn::NamedTensors& params) {
  Json json;
  each_setting(config.settings, [&](const Setting& setting, const auto& value) {
    json["config"][key_of(setting)] = value;
  });
  json["text"] = {{"path", config.text.path}, {"bytes", config.text.bytes}};
  json["vocabulary"] = config.vocabulary->size();
  json["step"] = at.step;
  json["epochs"] = at.epoch - 1;
  if (at.skipped > 0) json["skipped"] = at.skipped;
  if (at.best_epoch > 0) {
    json["best_valid_loss"] = at.best_loss;
    json["best_epoch"] = at.best_epoch;
  }
  if (at.is_tested()) json["test_loss"] = at.test_loss;
  json["parameters"] = Json::array();
  for (const auto& [name, value] : params.tensors)
    json["parameters"].push_back(
        {{"name", name},
         {"shape", std::vector<Index>(value.shape().begin(), value.shape().end())},
         {"count", value.size()},
         {"norm", norm_of(value)}});
  return json;
}

}  // namespace

int info(const InfoOptions& options) {
  const RunDirectory run(options.run);
  const RunConfig config = run.read_config();
  const optim::RunState checkpoint = run.load(config, run.checkpoint_file(options.checkpoint));
  const Progress at = progress_of(checkpoint);
  if (options.json)
    print(json_of(config, at, checkpoint.params)
              .dump(-1, ' ', false, Json::error_handler_t::replace) +
          '\n');
  else
    print(configuration(config) + training(at, config) + '\n' + table(checkpoint.params));
  return 0;
}

}  // namespace reel::char_lm
