#pragma once

#include <string>
#include <string_view>

#include <reel/datasets/text.h>

#include "corpus.h"
#include "settings.h"

namespace reel::char_lm {

/// What config.json says.
struct RunConfig {
  Settings settings;
  TextId text;
  datasets::Vocabulary vocabulary;

  /// The part that can never change, as text: all but the number of epochs and the text's path.
  std::string identity() const;
  /// The content of config.json.
  std::string json() const;
};

/// The most that a config.json takes: a vocabulary of all of Unicode, and room for the rest.
constexpr std::size_t longest_config = 16 << 20;

/// Reads such a content. Takes nothing but what `json` writes: each key once and with its kind of
/// value, no others. Throws ValueError saying what is wrong.
RunConfig parse_config(std::string_view text);

}  // namespace reel::char_lm
