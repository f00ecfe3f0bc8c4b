#include "manual.h"

#include <fmt/format.h>

#include <cctype>
#include <map>
#include <regex>
#include <string_view>

#include <reel/version.h>

#include "help_texts.h"
#include "options.h"

namespace reel::char_lm {
namespace {

// Text without special characters of roff, in one line: roff breaks lines itself.
std::string plain(std::string_view text) {
  std::string line = text.starts_with('.') || text.starts_with('\'') ? "\\&" : "";
  for (const char c : text) {
    if (c == '\\')
      line += "\\e";
    else if (c == '-')
      line += "\\-";
    else
      line += c == '\n' ? ' ' : c;
  }
  return line;
}

std::string bold(std::string_view text) { return "\\fB" + plain(text) + "\\fR"; }

// "--batch N", "-h, --help", "RUN ...".
std::string heading(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : CLI::detail::split(option.get_name(false, true), ','))
    names += (names.empty() ? "" : ", ") + bold(name);
  const std::string value = placeholder_of(option);
  return value.empty() ? names : names + " \\fI" + plain(value) + "\\fR";
}

std::string item(const std::string& heading, std::string_view text) {
  return fmt::format(".TP\n{}\n{}\n", heading, plain(text));
}

std::string synopsis(const CLI::App& command) {
  std::string line = bold(command.get_parent()->get_name() + " " + command.get_name());
  for (const CLI::Option* option : command.get_options())
    if (option->get_required()) line += " " + heading(*option);
  return line + " [\\fIOPTION\\fR]...\n";
}

// Paragraphs, which an empty line separates, with the options in them in bold.
std::string paragraphs(std::string_view text) {
  static const std::regex option(R"(\\-\\-[a-z]+(\\-[a-z]+)*)");
  std::string roff;
  while (!text.empty()) {
    const std::size_t end = text.find("\n\n");
    roff += ".PP\n" + std::regex_replace(plain(text.substr(0, end)), option, "\\fB$&\\fR") + "\n";
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 2);
  }
  return roff;
}

// The options of a command by groups, of which one that an earlier command has is not repeated;
// `shown` are those of the earlier ones, and who has them.
std::string options(const CLI::App& command, std::map<std::string, std::string>& shown) {
  std::string roff;
  for (const std::string& group : command.get_groups()) {
    std::string items;
    for (const CLI::Option* option : command.get_options())
      if (option->get_group() == group &&
          (!command.get_parent() || option != command.get_help_ptr()))
        items += item(heading(*option), option->get_description());
    if (items.empty()) continue;
    if (group == "Options") {
      roff += items;
      continue;
    }
    const auto [first, is_new] = shown.emplace(items, command.get_name());
    roff += ".PP\n\\fI" + plain(group) + "\\fR" +
            (is_new ? "\n" + items : ": the options of " + bold(first->second) + "\n");
  }
  return roff;
}

std::string table(std::span<const Meaning> rows) {
  std::string roff;
  for (const Meaning& row : rows) roff += item(bold(row.of), row.is);
  return roff;
}

// "a program" for "A program.".
std::string whatis(std::string text) {
  text.front() = static_cast<char>(std::tolower(static_cast<unsigned char>(text.front())));
  if (text.ends_with('.')) text.pop_back();
  return text;
}

}  // namespace

std::string manual(const CLI::App& program) {
  const std::string& name = program.get_name();
  std::map<std::string, std::string> shown;
  std::string synopses, commands;
  for (const CLI::App* command : program.get_subcommands({})) {
    synopses += (synopses.empty() ? "" : ".br\n") + synopsis(*command);
    commands += fmt::format(".SS {} {}\n{}\n{}{}", name, command->get_name(),
                            plain(command->get_description()), options(*command, shown),
                            paragraphs(command->get_footer()));
  }
  return fmt::format(
      ".TH {} 1 \"\" \"Reel {}\"\n.nh\n.ad l\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n{}.SH OPTIONS\n{}"
      ".SH COMMANDS\n{}.SH EXIT STATUS\n{}.SH ENVIRONMENT\n{}.SH EXAMPLES\n{}",
      name, version(), name, plain(whatis(program.get_description())), synopses,
      options(program, shown), commands, table(exit_codes()), table(environment()),
      table(examples()));
}

}  // namespace reel::char_lm
