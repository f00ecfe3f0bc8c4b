#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <reel/datasets/text.h>
#include <reel/datasets/windows.h>

#include "settings.h"

namespace reel::char_lm {

/// Which text a run learns: where it was found, and how to know it again.
struct TextId {
  std::string path;  ///< absolute; empty for the default text
  std::uint64_t bytes = 0;
  std::uint64_t hash = 0;  ///< FNV-1a of the content

  bool same_content(const TextId& other) const {
    return bytes == other.bytes && hash == other.hash;
  }
  /// "/texts/input.txt", or what the default text is.
  std::string description() const;
};

/// A text as tokens.
struct Corpus {
  TextId id;
  datasets::Vocabulary vocabulary;
  std::vector<std::int32_t> tokens;
};

/// Reads the text at `path`, by default the one that is built in. Throws FileError as
/// datasets::read_text does.
Corpus read_corpus(const std::filesystem::path& path, datasets::TextMode mode);

/// The part to train on and the part to validate with, which is empty for a train_frac of 1.
/// Throws ValueError, saying how long the text has to be, when a part is shorter than one window.
datasets::Split split_for(const Corpus& corpus, const Settings& settings);

}  // namespace reel::char_lm
