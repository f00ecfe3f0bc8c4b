#pragma once

#include <string_view>

namespace reel::char_lm {

/// Writes to standard output and flushes. Throws FileError if that fails.
void print(std::string_view text);

}  // namespace reel::char_lm
