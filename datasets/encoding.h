#pragma once

#include <string_view>

namespace reel::datasets {

/// "UTF-16LE", "UTF-32" or the like if a file appears to be text in code units of 2 or 4 bytes,
/// otherwise null. A byte order mark tells; without one it is judged from the first 4096 bytes.
const char* encoding_of_units(std::string_view content);

}  // namespace reel::datasets
