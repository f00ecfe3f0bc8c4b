#include "recipes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

namespace reel::char_lm {
namespace {

// The text in lines that end between two words.
std::string in_lines(std::string_view text, std::size_t most) {
  std::string lines;
  while (text.size() > most) {
    const std::size_t end = text.rfind(' ', most);
    lines += fmt::format("{}\n", text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  return lines + std::string(text) + '\n';
}

}  // namespace

std::span<const Recipe> recipes() {
  static const std::vector<Recipe> all = {
      {"karpathy",
       "Karpathy, Johnson and Li, \"Visualizing and understanding recurrent networks\", 2015; "
       "their "
       "--model, --layers, --hidden and --dropout vary",
       {{"embed", "0"},
        {"init-uniform", "0.08"},
        {"train-frac", "0.8"},
        {"test-frac", "0.1"},
        {"seq-len", "100"},
        {"batch", "100"},
        {"epochs", "50"},
        {"optimizer", "rmsprop"},
        {"lr", "2e-3"},
        {"decay-rate", "0.95"},
        {"schedule", "exponential"},
        {"lr-decay", "0.95"},
        {"lr-decay-after", "10"},
        {"clip", "0"},
        {"clip-value", "5"}}},
  };
  return all;
}

std::string names_of_recipes() {
  std::string names;
  for (const Recipe& recipe : recipes())
    names += (names.empty() ? "" : "|") + std::string(recipe.name);
  return names;
}

const Recipe& recipe_named(const std::string& name) {
  const auto found = std::ranges::find(recipes(), name, &Recipe::name);
  if (found != recipes().end()) return *found;
  std::vector<std::string> names;
  for (const Recipe& recipe : recipes()) names.emplace_back(recipe.name);
  throw ValueError(
      fmt::format("recipe is {}, but has to be {}", in_quotes(name), fmt::join(names, " or ")));
}

void follow(const Recipe& recipe, Settings& settings, const Given& given) {
  each_setting(settings, [&](const Setting& setting, auto& member) {
    const auto found = std::ranges::find(recipe.values, setting.name, &RecipeValue::setting);
    if (found != recipe.values.end() && !given.contains(std::string(setting.name)))
      assign(setting, std::string(found->value), member);
  });
}

std::string help_of_recipes() {
  std::string text;
  for (const Recipe& recipe : recipes()) {
    std::string words = fmt::format("--recipe {}: what is not given is", recipe.name);
    for (const auto& [setting, value] : recipe.values)
      words += fmt::format(" --{} {}", setting, value);
    text += in_lines(fmt::format("{} ({}).", words, recipe.source), 79);
  }
  return text;
}

}  // namespace reel::char_lm
