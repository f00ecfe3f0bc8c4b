#pragma once

#include <span>
#include <string>
#include <string_view>

namespace reel::char_lm {

/// What the help of `train` and of `tune` says below the options, in lines of at most 80
/// characters.
std::string help_of_training();
std::string help_of_search();

/// What something `is`: a row of the tables of the man page.
struct Meaning {
  std::string_view of, is;
};
/// The exit codes, the environment variables that are read, and commands to begin with.
std::span<const Meaning> exit_codes();
std::span<const Meaning> environment();
std::span<const Meaning> examples();

}  // namespace reel::char_lm
