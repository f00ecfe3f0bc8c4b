#pragma once

#include <CLI/CLI.hpp>

#include "commands.h"

/// The options of export and import.
namespace reel::char_lm {

void add_export(CLI::App& app, ExportOptions& options);
void add_import(CLI::App& app, ImportOptions& options);

/// The options once all are known. Throw UsageError.
ExportOptions checked(ExportOptions options);
ImportOptions checked(ImportOptions options);

}  // namespace reel::char_lm
