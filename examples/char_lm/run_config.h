#pragma once

#include <string>
#include <string_view>

#include <reel/nn/files/location.h>

#include "corpus.h"
#include "settings.h"
#include "vocabulary.h"

namespace reel::char_lm {

/// The content of config.json.
struct RunConfig {
  Settings settings;
  TextId text;
  VocabularyPtr vocabulary;

  /// The immutable part, as text: everything except what may change when the run is resumed,
  /// and the text's path.
  std::string identity() const;
  /// The content of config.json.
  std::string json() const;
};

/// The maximum size of a config.json: a vocabulary of all of Unicode, and room for the rest.
constexpr std::size_t longest_config = 16 << 20;

/// Parses such a text. Accepts only what `json` writes: each key once and with the right type of
/// value, no other keys. Throws ValueError saying what is wrong. A vocabulary that is not in it is
/// loaded from its file, as load_vocabulary does.
RunConfig parse_config(std::string_view text, const nn::Location& vocabulary_file);

}  // namespace reel::char_lm
