#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "settings.h"

/// How options are added to a command, and what the help, the man page and the completions of
/// shells ask them.
///
/// The type of an option is DIR, FILE, another placeholder such as N, or the words to choose from,
/// as in "rnn|gru|lstm" or with a placeholder "last|best|STEP"; that of a flag is empty. The option
/// text, if there is one, takes its place where people read it.
namespace reel::char_lm {

/// Adds --name, whose value `take` is called with, the last one if there are several. An Error that
/// it throws becomes CLI11's, after "--": it begins with the name.
CLI::Option* add_text(CLI::App& app, std::string_view name, std::string_view type,
                      const std::string& help, std::function<void(const std::string&)> take);

/// Adds an option for a member of Settings or another value described in the same way.
template <class T>
CLI::Option* add_setting(CLI::App& app, const Setting& setting, T& value) {
  const std::string by_default =
      setting.otherwise.empty() ? fmt::format("{}", value) : std::string(setting.otherwise);
  CLI::Option* option =
      add_text(app, setting.name, setting.value, fmt::format("{} [{}]", setting.help, by_default),
               [=, &value](const std::string& text) { assign(setting, text, value); });
  if (setting.choices.empty()) return option;
  return option->type_name(std::string(setting.choices))->option_text(std::string(setting.value));
}
CLI::Option* add_setting(CLI::App& app, const Setting& setting, bool& value);

/// Adds an option for a path, which may not be empty.
CLI::Option* add_path(CLI::App& app, std::string_view name, std::string_view type,
                      const std::string& help,
                      const std::function<void(const std::filesystem::path&)>& take);

/// Options that several commands have: --run, --checkpoint, and one for each member of Settings.
void add_run(CLI::App& app, std::filesystem::path& run, const std::string& of = "run");
void add_checkpoint(CLI::App& app, std::string& checkpoint);
void add_settings(CLI::App& app, Settings& settings);

/// What people read: "N", "rnn|gru|lstm", or "NAME" for a long list of words.
std::string placeholder_of(const CLI::Option& option);
/// The words to choose from: what is not upper case in the type.
std::vector<std::string> choices_of(const CLI::Option& option);

/// Help with the explanations in a column of that number.
std::shared_ptr<CLI::Formatter> help_formatter(std::size_t column);

}  // namespace reel::char_lm
