#include "exchange_options.h"

#include <fmt/format.h>

#include <utility>

#include <reel/autograd/message.h>

#include "command_line.h"
#include "options.h"

namespace reel::char_lm {

using Path = std::filesystem::path;

void add_export(CLI::App& app, ExportOptions& options) {
  add_run(app, options.run);
  add_checkpoint(app, options.checkpoint);
  const auto add = [&](const char* name, const char* help, std::optional<Path>& to) {
    add_path(app, name, "FILE", help, [&](const Path& path) { to = path; });
  };
  add("onnx", "an ONNX model, for ONNX Runtime and others", options.onnx);
  add("torch", "safetensors for PyTorch, and a module beside it", options.torch);
  add("keras", "weights for Keras, .npz", options.keras);
  add("flax", "weights for Flax, .npz", options.flax);
  app.footer(
      "The model takes tokens [T, B], the numbers of symbols, and the states of the\n"
      "layers, and returns logits [T, B, symbols] and the last states. What the symbols\n"
      "are is in the metadata `symbols` of the ONNX and safetensors files, as JSON.\n"
      "docs/migrating.md has a program that samples from it.");
}

namespace {

std::pair<std::string, std::string> rename_of(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    throw CLI::ValidationError(
        fmt::format("--rename is {}, but has to be OLD=NEW", in_quotes(text)));
  return {text.substr(0, equals), text.substr(equals + 1)};
}

}  // namespace

void add_import(CLI::App& app, ImportOptions& options) {
  add_path(app, "weights", "FILE", ".safetensors, .index.json or .npz", [&](const Path& path) {
    options.weights = path;
  })->required();
  add_run(app, options.run);
  add_path(app, "text", "FILE", "text with the model's symbols [Reel's own sources]",
           [&](const Path& path) { options.text = path; });
  add_path(app, "symbols", "FILE", "the symbols in the order of the weights",
           [&](const Path& path) { options.symbols = path; });
  const Setting from{.name = "from",
                     .help = "whose they are [as their names tell]",
                     .value = "torch|keras|flax|reel",
                     .allowed = "torch, keras, flax or reel"};
  add_text(app, from.name, from.value, std::string(from.help),
           [&, from](const std::string& text) { assign(from, text, options.from.emplace()); });
  const auto rename = [&](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) options.renames.push_back(rename_of(text));
  };
  app.add_option_function<std::vector<std::string>>("--rename", rename,
                                                    "a module's other name, see below")
      ->type_name("OLD=NEW")
      ->allow_extra_args(false);
  each_setting(options.settings, [&](const Setting& setting, auto& value) {
    if (setting.name != "init-uniform")  // the numbers are there
      add_setting(app, setting, value)->group(std::string(setting.group));
  });
  app.footer(
      "Makes a run with the weights of another framework, for sample, eval and train\n"
      "--resume. The modules are embed, rnn and head, in Keras and Flax rnn_0, rnn_1,\n"
      "...; --rename decoder=head tells other names. --model, --layers, --hidden and\n"
      "--embed follow from the weights. Symbols are those of the text in the order of\n"
      "their code points; where the weights have another order, give --symbols. See\n"
      "char_lm train --help for --optimizer, --schedule, --on-nan and --matmul.");
}

ExportOptions checked(ExportOptions options) {
  if (!options.onnx && !options.torch && !options.keras && !options.flax)
    throw UsageError(
        "one of --onnx, --torch, --keras and --flax is required; see char_lm export --help");
  return options;
}

ImportOptions checked(ImportOptions options) {
  try {
    complete(options.settings, options.given);
    require_consistent(options.settings, options.given);
  } catch (const ValueError& error) {
    throw UsageError(fmt::format("--{}; see char_lm import --help", error.message()));
  }
  return options;
}

}  // namespace reel::char_lm
