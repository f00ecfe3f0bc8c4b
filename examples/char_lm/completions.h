#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace reel::char_lm {

/// A script that makes bash complete the commands of a program, their options and the values that
/// are words of a list, files or directories.
std::string bash_completion(const CLI::App& program);
/// The same for zsh, which also shows what each of them means.
std::string zsh_completion(const CLI::App& program);

}  // namespace reel::char_lm
