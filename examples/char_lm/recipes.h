#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "settings.h"

namespace reel::char_lm {

/// A value of a setting, as it is given on the command line.
struct RecipeValue {
  std::string_view setting, value;
};

/// The settings of a published training under one name.
struct Recipe {
  std::string_view name;
  std::string_view source;  ///< where it is from, for the help
  std::vector<RecipeValue> values;
};

/// All of them.
std::span<const Recipe> recipes();
/// Their names, with | between them.
std::string names_of_recipes();
/// The recipe of that name. Throws ValueError, listing the names, if there is none.
const Recipe& recipe_named(const std::string& name);

/// Gives the settings that are not among `given` the values that the recipe has for them.
void follow(const Recipe& recipe, Settings& settings, const Given& given);

/// What each recipe stands for, in lines of at most 80 characters.
std::string help_of_recipes();

}  // namespace reel::char_lm
