#include "options.h"

#include <cctype>
#include <sstream>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

namespace reel::char_lm {
namespace {

class Formatter : public CLI::Formatter {
 public:
  explicit Formatter(std::size_t width) { column_width(width); }
  std::string make_description(const CLI::App* app) const override {
    return app->get_description() + "\n\n";
  }
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = "usage: " + name + (app->get_parent() ? "" : " COMMAND");
    for (const CLI::Option* option : app->get_options())
      if (option->get_required()) usage += " " + option->get_name() + make_option_opts(option);
    return usage + " [OPTION]...\n\n";
  }
  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override {
    return CLI::Formatter::make_group(group, is_positional, options).substr(1);  // a blank line
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    const std::string value = placeholder_of(*option);
    return value.empty() ? "" : " " + value;
  }
};

}  // namespace

CLI::Option* add_text(CLI::App& app, std::string_view name, std::string_view type,
                      const std::string& help, std::function<void(const std::string&)> take) {
  const auto take_or_refuse = [take = std::move(take)](const std::string& text) {
    try {
      take(text);
    } catch (const Error& error) {
      throw CLI::ValidationError(fmt::format("--{}", error.message()));
    }
  };
  return app.add_option_function<std::string>(fmt::format("--{}", name), take_or_refuse, help)
      ->type_name(std::string(type))
      ->take_last();
}

CLI::Option* add_setting(CLI::App& app, const Setting& setting, bool& value) {
  return app.add_flag(fmt::format("--{}", setting.name), value, std::string(setting.help));
}

CLI::Option* add_path(CLI::App& app, std::string_view name, std::string_view type,
                      const std::string& help,
                      const std::function<void(const std::filesystem::path&)>& take) {
  return add_text(app, name, type, help, [=](const std::string& text) {
    if (text.empty()) throw ValueError(fmt::format("{} is empty, but has to be a path", name));
    take(text);
  });
}

std::string placeholder_of(const CLI::Option& option) {
  const std::string text = option.get_option_text();
  return text.empty() ? option.get_type_name() : text;
}

std::vector<std::string> choices_of(const CLI::Option& option) {
  std::vector<std::string> choices;
  std::istringstream words(option.get_type_name());
  for (std::string word; std::getline(words, word, '|');)
    if (std::isupper(static_cast<unsigned char>(word.front())) == 0) choices.push_back(word);
  return choices;
}

std::shared_ptr<CLI::Formatter> help_formatter(std::size_t column) {
  return std::make_shared<Formatter>(column);
}

void add_run(CLI::App& app, std::filesystem::path& run, const std::string& of) {
  add_path(app, "run", "DIR", "directory of the " + of, [&](const std::filesystem::path& path) {
    run = path;
  })->required();
}

void add_checkpoint(CLI::App& app, std::string& checkpoint) {
  add_text(app, "checkpoint", "last|best|STEP", "last, best or a step that --keep kept [last]",
           [&](const std::string& text) {
             const bool is_step = !text.empty() && text.size() <= 18 &&
                                  text.find_first_not_of("0123456789") == std::string::npos;
             if (text != "last" && text != "best" && !is_step)
               throw ValueError(fmt::format(
                   "checkpoint is {}, but has to be last, best or the number of a kept step",
                   in_quotes(text)));
             checkpoint = text;
           })
      ->option_text("NAME");
}

void add_settings(CLI::App& app, Settings& settings) {
  each_setting(settings, [&](const Setting& setting, auto& value) {
    add_setting(app, setting, value)->group(std::string(setting.group));
  });
}

}  // namespace reel::char_lm
