#include "writer.h"

#include <algorithm>

namespace reel::char_lm {

std::int32_t first_token(const datasets::Vocabulary& vocabulary) {
  const auto newline = std::ranges::find(vocabulary.symbols(), U'\n');
  return newline == vocabulary.symbols().end()
             ? 0
             : static_cast<std::int32_t>(newline - vocabulary.symbols().begin());
}

}  // namespace reel::char_lm
