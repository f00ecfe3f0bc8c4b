#pragma once

#include <string_view>

namespace reel::char_lm {

/// Writes to standard output at once. Throws FileError when it cannot.
void print(std::string_view text);

}  // namespace reel::char_lm
