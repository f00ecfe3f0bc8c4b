#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <reel/datasets/text.h>
#include <reel/datasets/windows.h>

#include "settings.h"

namespace reel::char_lm {

/// Which text a run is trained on: where it was found, and how to recognise it.
struct TextId {
  std::string path;  ///< absolute; empty for the default text
  std::uint64_t bytes = 0;
  std::uint64_t hash = 0;  ///< FNV-1a of the content

  bool same_content(const TextId& other) const {
    return bytes == other.bytes && hash == other.hash;
  }
  /// "/texts/input.txt", or a description of the default text.
  std::string description() const;
};

/// A text as tokens.
struct Corpus {
  TextId id;
  datasets::Vocabulary vocabulary;
  std::vector<std::int32_t> tokens;
};

/// Reads the text at `path`, or the built-in text if it is empty. Throws FileError as
/// datasets::read_text does.
Corpus read_corpus(const std::filesystem::path& path, datasets::TextMode mode);

/// The training part and the validation part, which is empty for a train_frac of 1. Throws
/// ValueError, saying how long the text has to be, if a part is shorter than one window.
datasets::Split split_for(const Corpus& corpus, const Settings& settings);

}  // namespace reel::char_lm
