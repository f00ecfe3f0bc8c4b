#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/datasets/token_source.h>
#include <reel/nn/files/location.h>

#include "settings.h"

namespace reel::char_lm {

/// The symbols that a model reads and writes, whatever they are at the run's --level, and their
/// numbers, the tokens 0 .. size() - 1.
class Vocabulary {
 public:
  virtual ~Vocabulary() = default;

  virtual Index size() const = 0;
  /// The tokens of a text. Throws ValueError naming what is not in the vocabulary.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  /// The tokens of a text that the model is to continue. Throws ValueError naming what it has never
  /// seen.
  virtual std::vector<std::int32_t> encode_prime(std::string_view text) const = 0;
  /// The tokens of a file, which are read when they are needed. Null if they have to be in memory.
  virtual std::unique_ptr<datasets::TokenSource> tokens_in(const std::filesystem::path&) const {
    return nullptr;
  }
  /// The token before a text without a beginning: the end of a line, if there is one.
  virtual std::int32_t first() const = 0;

  /// What a token adds to a text that ends with `before`.
  virtual std::string text(std::int32_t token, char before = '\n') const = 0;
  /// What tokens are as UTF-8, in which a byte is the code point of its number, or U+FFFD if it is
  /// a part of a character.
  virtual std::string readable(std::span<const std::int32_t> tokens) const = 0;
  /// A symbol in a message.
  virtual std::string name(std::int32_t token) const = 0;
  /// Whether bits per byte are a measure of the loss: symbols differ in length, and are the text.
  virtual bool has_bits_per_byte() const { return false; }

  /// All symbols in order as UTF-8, if config.json holds them; otherwise they are saved in a file.
  virtual std::optional<std::string> listing() const { return std::nullopt; }
  virtual void save(const nn::Location&) const {}
  /// FNV-1a of what `save` writes, from which a damaged file is told.
  virtual std::uint64_t hash() const { return 0; }

 protected:
  std::string joined(std::span<const std::int32_t> tokens) const;
};

using VocabularyPtr = std::shared_ptr<const Vocabulary>;

/// The symbols of a text, with --level bpe learned from it. Throws ValueError, as for a text
/// without words.
VocabularyPtr vocabulary_of(std::string_view text, const Settings& settings);
/// Those of a file that is not read into memory, all 256 with --level byte. Throws FileError.
VocabularyPtr vocabulary_of_file(const std::filesystem::path& path, const Settings& settings);
/// The vocabulary with that listing. Throws ValueError for any other text.
VocabularyPtr listed_vocabulary(const std::string& listing, const Settings& settings);
/// Reads the file that `save` wrote. Throws FileError, also if it has another size or hash.
VocabularyPtr load_vocabulary(const nn::Location& where, const Settings& settings, Index size,
                              std::uint64_t hash);

/// Whether config.json lists the vocabulary of such a run.
bool has_listing(const Settings& settings);
/// Whether tokens of such a run can be read from the file of the text when they are needed.
bool can_stay_in_file(const Settings& settings);

}  // namespace reel::char_lm
