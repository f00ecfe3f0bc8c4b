#include "program.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <iostream>
#include <limits>

#include <reel/autograd/error.h>

namespace reel::examples {

namespace {

// CLI11's own checks repeat in the help what the option's placeholder says.
CLI::Validator without_words_in_help(
    const std::function<std::string(const std::string&)>& complaint) {
  return {[=](std::string& text) { return complaint(text); }, ""};
}

template <class T>
CLI::Validator number_check(std::function<bool(T)> allows, const std::string& what) {
  return without_words_in_help([=](const std::string& text) -> std::string {
    T x;
    return CLI::detail::lexical_cast(text, x) && allows(x)
               ? ""
               : fmt::format("'{}' is not {}", text, what);
  });
}

}  // namespace

struct Program::Parser {
  // The value of an option in a recipe; --fast is one.
  struct Preset {
    std::string recipe;
    const void* value;
    std::function<void()> set;
  };
  struct Known {
    CLI::Option* option;
    const void* value;
    std::function<std::string()> text;
  };

  CLI::App app;
  std::string name;
  bool is_fast = false;
  std::string recipe;
  std::vector<Known> known;
  std::vector<Preset> presets;

  // An option of a value that can be written.
  template <class T>
  CLI::Option* add(const std::string& option, T& value, const std::string& help) {
    known.push_back({app.add_option(option, value, help), &value,
                     [&value] { return fmt::format("{}", value); }});
    return known.back().option->capture_default_str();
  }
  void apply(const std::string& name) const {
    for (const Preset& preset : presets)
      if (preset.recipe == name && !is_given(preset.value)) preset.set();
  }
  CLI::Option& option_of(const void* value) const {
    return *std::ranges::find(known, value, &Known::value)->option;
  }
  bool is_given(const void* value) const { return option_of(value).count() > 0; }
};

Program::Program(std::string name, const std::string& description)
    : parser_(std::make_unique<Parser>()) {
  parser_->name = std::move(name);
  parser_->app.name(parser_->name);
  parser_->app.description(description);
  parser_->app.get_formatter()->column_width(34);
}

Program::~Program() = default;

Program::Added<Index> Program::option(const std::string& name, Index& value,
                                      const std::string& help, Index least) {
  parser_->add(name, value, help)
      ->check(number_check<Index>([=](Index x) { return x >= least; },
                                  fmt::format("a whole number from {} on", least)))
      ->type_name("N");
  return {*this, value};
}

Program::Added<double> Program::option(const std::string& name, double& value,
                                       const std::string& help, double low, double high) {
  parser_->add(name, value, help)
      ->check(number_check<double>([=](double x) { return x >= low && x <= high; },
                                   fmt::format("a number from {} to {}", low, high)))
      ->type_name("X");
  return {*this, value};
}

Program::Added<std::string> Program::option(const std::string& name, std::string& value,
                                            const std::string& help, const char* type) {
  parser_->add(name, value, help)->type_name(type);
  return {*this, value};
}

Program::Added<std::string> Program::option(const std::string& name, std::string& value,
                                            const std::string& help,
                                            const std::vector<std::string>& words) {
  parser_->add(name, value, help)
      ->check(without_words_in_help([=](const std::string& text) -> std::string {
        if (std::ranges::find(words, text) != words.end()) return "";
        return fmt::format("'{}' is none of {}", text, fmt::join(words, ", "));
      }))
      ->type_name(fmt::format("{}", fmt::join(words, "|")));
  return {*this, value};
}

void Program::flag(const std::string& name, bool& value, const std::string& help) {
  parser_->known.push_back(
      {parser_->app.add_flag(name, value, help), &value, [&] { return value ? "yes" : "no"; }});
}

void Program::recipes(const std::vector<std::string>& names) {
  option("--recipe", parser_->recipe, "settings that belong together", names);
}

void Program::require(const void* value) { parser_->option_of(value).required(); }

void Program::set_in(const std::string& recipe, const void* value, std::function<void()> set) {
  if (recipe == "fast" && !parser_->app.get_option_no_throw("--fast"))
    parser_->app.add_flag("--fast", parser_->is_fast,
                          "a try of some seconds, with a weaker result");
  parser_->presets.push_back({recipe, value, std::move(set)});
}

std::string Program::settings() const {
  static constexpr std::array<std::string_view, 5> free{"--save", "--epochs", "--chart", "--map",
                                                        "--tag"};
  std::string text;
  for (const Parser::Known& k : parser_->known)
    if (const std::string name = k.option->get_name(); std::ranges::find(free, name) == free.end())
      text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, k.text());
  return text;
}

int Program::run(int argc, char** argv, const std::function<void()>& work) try {
  try {
    parser_->app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return parser_->app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::cerr << parser_->name << ": " << error.what() << "; see --help\n";
    return 2;
  }
  if (!parser_->recipe.empty()) parser_->apply(parser_->recipe);
  if (parser_->is_fast) parser_->apply("fast");
  work();
  return 0;
} catch (const Error& error) {
  std::cout << std::flush;
  std::cerr << parser_->name << ": " << error.message() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cout << std::flush;
  std::cerr << parser_->name << ": " << error.what() << '\n';
  return 1;
}

void print_result(std::string_view what, double value, std::string_view beside) {
  std::cout << fmt::format("result: {} = {:.4g} ({})\n", what, value, beside) << std::flush;
}

}  // namespace reel::examples
