#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <optional>
#include <string>

#include "golden_directory.h"

/// A data set that is not part of the project, in shared/data beside it. If there is none, says
/// that the test is skipped.
inline std::optional<std::filesystem::path> shared_data(const std::string& name) {
  const auto path = std::filesystem::path(REEL_GOLDEN_DIR) / "../../../shared/data" / name;
  if (std::filesystem::exists(path)) return path;
  MESSAGE("skipped: there is no shared/data/" << name << " beside the project");
  return std::nullopt;
}
