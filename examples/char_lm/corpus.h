#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <reel/datasets/token_source.h>

#include "settings.h"
#include "vocabulary.h"

namespace reel::char_lm {

/// A file of this many bytes or more is a large text, if its --level and --normalize allow it: it
/// stays in the file, from which tokens are read when they are needed.
constexpr std::uint64_t large_text = 64 << 20;

/// Which text a run is trained on: where it was found, and how to recognise it.
struct TextId {
  std::string path;  ///< absolute; empty for the default text
  std::uint64_t bytes = 0;
  std::uint64_t hash = 0;  ///< FNV-1a of the content, of a large text of parts of it
  bool in_parts = false;   ///< whether it is large

  bool same_content(const TextId& other) const {
    return bytes == other.bytes && hash == other.hash && in_parts == other.in_parts;
  }
  /// "/texts/input.txt", or a description of the default text.
  std::string description() const;
};

/// A text that was found.
struct Text {
  std::filesystem::path path;
  TextId id;
  std::string content = {};  ///< in the normal form of --normalize; empty for a large text
};

/// Whether the file at `path` is a large text.
bool is_large(const std::filesystem::path& path, const Settings& settings);

/// Finds the text at `path`, or the built-in text if it is empty. A large one takes the same time
/// whatever its size. Throws FileError as datasets::read_text does.
Text find_text(const std::filesystem::path& path, const Settings& settings, bool large);

/// A text as tokens.
struct Corpus {
  TextId id;
  VocabularyPtr vocabulary;
  std::unique_ptr<datasets::TokenSource> tokens;
};

/// A text as tokens of a vocabulary, or of its own if that is null; a large one of --level byte
/// with a vocabulary of all bytes. Throws FileError, also for symbols that are not in the
/// vocabulary.
Corpus corpus_of(const Text& text, const Settings& settings, VocabularyPtr vocabulary = nullptr);

/// The parts of a text, one after another, which refer to the corpus.
struct TextParts {
  datasets::TokenRange train, valid, test;
};
/// Of n symbols the first floor(train_frac · n), the last floor(test_frac · n) and those between
/// them; where the two fractions are all, the last part is what the first leaves. Throws
/// ValueError, saying how long the text has to be, if one that is not to be empty is shorter than
/// one window.
TextParts split_for(const Corpus& corpus, const Settings& settings);

/// The text in the normal form of --normalize. Throws ValueError if it is not UTF-8.
std::string normalized(std::string text, const Settings& settings);

}  // namespace reel::char_lm
