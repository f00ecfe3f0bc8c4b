#pragma once

#include <cstdint>
#include <string_view>

namespace reel {

/// 64-bit FNV-1a (Fowler, Noll, Vo): the same on every machine and in every run. Continues from the
/// hash of the preceding text.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t hash = 0xcbf29ce484222325) {
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace reel
