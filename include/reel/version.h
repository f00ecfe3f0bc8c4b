#pragma once

#include <string_view>

namespace reel {

/// The version of these headers, as in meson.build. Before 1.0 a program compiled with one minor
/// version does not run with a shared library of another; the numbers after it are compatible.
inline constexpr int version_major = 0;
inline constexpr int version_minor = 2;
inline constexpr int version_patch = 0;

/// That of the library, "0.2.0".
std::string_view version();

}  // namespace reel
