#include <fmt/format.h>

#include <string>

#include <reel/version.h>

namespace reel {

std::string_view version() {
  // Never destroyed, as what ends after main may ask for it.
  static const std::string& text =
      *new std::string(fmt::format("{}.{}.{}", version_major, version_minor, version_patch));
  return text;
}

}  // namespace reel
