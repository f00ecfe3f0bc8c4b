#pragma once

#include <filesystem>
#include <optional>

#include "run_config.h"

namespace reel::char_lm {

/// The text of the run in a directory, from its old path unless `moved` says where it is now.
/// Throws FileError if it is not found, ValueError if it is not the text that the run was begun
/// with.
Corpus text_of_run(const RunConfig& config, const std::filesystem::path& run,
                   const std::optional<std::filesystem::path>& moved);

}  // namespace reel::char_lm
