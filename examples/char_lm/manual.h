#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace reel::char_lm {

/// The man page of a program, in roff: its commands and their options, exit codes and environment.
std::string manual(const CLI::App& program);

}  // namespace reel::char_lm
