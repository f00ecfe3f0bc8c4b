#pragma once

#include <string>
#include <string_view>

#include <reel/datasets/text.h>

#include "corpus.h"
#include "settings.h"

namespace reel::char_lm {

/// The content of config.json.
struct RunConfig {
  Settings settings;
  TextId text;
  datasets::Vocabulary vocabulary;

  /// The immutable part, as text: everything except what may change when the run is resumed,
  /// and the text's path.
  std::string identity() const;
  /// The content of config.json.
  std::string json() const;
};

/// The maximum size of a config.json: a vocabulary of all of Unicode, and room for the rest.
constexpr std::size_t longest_config = 16 << 20;

/// Parses such a text. Accepts only what `json` writes: each key once and with the right type of
/// value, no other keys. Throws ValueError saying what is wrong.
RunConfig parse_config(std::string_view text);

}  // namespace reel::char_lm
