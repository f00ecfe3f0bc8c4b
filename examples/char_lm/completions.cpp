#include "completions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <string_view>
#include <vector>

#include "options.h"

namespace reel::char_lm {
namespace {

using Words = std::vector<std::string>;

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// What bash does for the value of an option: there is nothing to choose from for a number.
std::string bash_action(const CLI::Option& option) {
  if (option.get_type_name() == "DIR") return "compopt -o dirnames";
  if (option.get_type_name() == "FILE") return "compopt -o default";
  return fmt::format("words='{}'", fmt::join(choices_of(option), " "));
}

// What follows which word of a command; `words` are what may follow beside options.
std::string bash_cases(const CLI::App& command, Words words) {
  std::map<std::string, Words> options_of;  // each action
  std::string argument;
  for (const CLI::Option* option : command.get_options()) {
    if (!option->nonpositional()) {
      argument = fmt::format("        *) [[ $word == -* ]] || {{ {}; return; }}\n          ",
                             bash_action(*option));
      continue;
    }
    words.push_back(option->get_name());
    if (takes_value(*option)) options_of[bash_action(*option)].push_back(words.back());
  }
  std::string cases;
  for (const auto& [action, names] : options_of)
    cases += fmt::format("        {}) {} ;;\n", fmt::join(names, " | "), action);
  return cases + fmt::format("{}words='{}' ;;\n", argument.empty() ? "        *) " : argument,
                             fmt::join(words, " "));
}

// In single quotes, with a backslash before the characters that are special in a list of zsh.
std::string zsh_word(std::string_view text, std::string_view special) {
  std::string word;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) word += '\\';
    word += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return word;
}

std::string zsh_action(const CLI::Option& option) {
  if (option.get_type_name() == "DIR") return "_files -/";
  if (option.get_type_name() == "FILE") return "_files";
  return fmt::format("({})", fmt::join(choices_of(option), " "));
}

// The arguments of _arguments for an option, one for each of its names.
std::string zsh_option(const CLI::Option& option) {
  const bool repeats = option.get_items_expected_max() > 1;
  const std::string value =
      takes_value(option)
          ? fmt::format(":{}:{}", zsh_word(placeholder_of(option), "\\:"), zsh_action(option))
          : "";
  if (!option.nonpositional())
    return fmt::format(" \\\n          '{}{}'", repeats ? "*" : "", value);
  const Words names = CLI::detail::split(option.get_name(false, true), ',');
  std::string specs;
  for (const std::string& name : names)
    specs += fmt::format(
        " \\\n          '{}{}{}[{}]{}'", repeats ? "*" : fmt::format("({})", fmt::join(names, " ")),
        name, takes_value(option) ? "=" : "", zsh_word(option.get_description(), "\\[]"), value);
  return specs;
}

std::string zsh_options(const CLI::App& command) {
  std::string specs;
  for (const CLI::Option* option : command.get_options()) specs += zsh_option(*option);
  return specs;
}

}  // namespace

std::string bash_completion(const CLI::App& program) {
  Words names;
  std::string cases;
  for (const CLI::App* command : program.get_subcommands({})) {
    names.push_back(command->get_name());
    cases += fmt::format("    {})\n      case $before in\n{}      esac ;;\n", names.back(),
                         bash_cases(*command, {}));
  }
  cases += fmt::format("    '' | -*)\n      case $before in\n{}      esac ;;\n",
                       bash_cases(program, std::move(names)));
  return fmt::format(R"(# What bash completes after {0}, as {0} --print bash prints it.
_{0}() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command= words=
  COMPREPLY=()
  # To bash --name=value is three words.
  if [[ $word == = ]]; then
    word=
  elif [[ $before == = ]]; then
    before=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  ((COMP_CWORD == 1)) || command=${{COMP_WORDS[1]}}
  case $command in
{1}  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _{0} {0}
)",
                     program.get_name(), cases);
}

std::string zsh_completion(const CLI::App& program) {
  std::string commands, cases;
  for (const CLI::App* command : program.get_subcommands({})) {
    const std::string& name = command->get_name();
    commands += fmt::format("    '{}:{}'\n", name, zsh_word(command->get_description(), ""));
    cases += fmt::format("        {}) _arguments{} && found=0 ;;\n", name, zsh_options(*command));
  }
  return fmt::format(R"(#compdef {0}
# What zsh completes after {0}, as {0} --print zsh prints it.
_{0}() {{
  local curcontext=$curcontext state line found=1
  local -a commands=(
{1}  )
  _arguments -C{2} \
          '1:command:->command' '*::argument:->argument' && found=0
  case $state in
    command) _describe command commands && found=0 ;;
    argument)
      curcontext=${{curcontext%:*:*}}:{0}-$words[1]:
      case $words[1] in
{3}      esac ;;
  esac
  return found
}}
if [[ $funcstack[1] == _{0} ]]; then _{0} "$@"; else compdef _{0} {0}; fi
)",
                     program.get_name(), commands, zsh_options(program), cases);
}

}  // namespace reel::char_lm
