#include "run_text.h"

#include <fmt/format.h>

#include <reel/autograd/error.h>

#include "words.h"

namespace reel::char_lm {
namespace {

Text find(const RunConfig& config, const std::optional<std::filesystem::path>& moved) {
  const auto at = [&](const std::filesystem::path& path) {
    return find_text(path, config.settings, config.text.in_parts);
  };
  if (moved) return at(*moved);
  try {
    return at(config.text.path);
  } catch (const FileError& error) {
    throw FileError(
        fmt::format("{} (the text of the run; if it is elsewhere now, or its path is "
                    "not UTF-8, give it with --text)",
                    error.message()));
  }
}

}  // namespace

Corpus text_of_run(const RunConfig& config, const std::filesystem::path& run,
                   const std::optional<std::filesystem::path>& moved) {
  const Text text = find(config, moved);
  if (!text.id.same_content(config.text))
    throw ValueError(
        fmt::format("{}: not the text that the run in {} was begun with ({}, "
                    "then {}); give that one with --text, or another --run",
                    text.id.description(), short_path(run),
                    counted(static_cast<Index>(text.id.bytes), "byte"), config.text.bytes));
  return corpus_of(text, config.settings, config.vocabulary);
}

}  // namespace reel::char_lm
