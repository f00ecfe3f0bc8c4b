#pragma once

#include <string>

namespace reel::char_lm {

/// What the help of `train` and of `tune` says below the options, in lines of at most 80
/// characters.
std::string help_of_training();
std::string help_of_search();

}  // namespace reel::char_lm
