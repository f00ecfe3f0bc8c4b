#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <reel/autograd/shape.h>

/// Numbers and paths in messages.
namespace reel::char_lm {

/// "1 byte", "2 bytes".
std::string counted(Index number, std::string_view unit);
/// "1,115,394".
std::string grouped(Index number);
/// A number, with "nan" for each NaN: the sign that fmt prints for some of them means nothing.
std::string number(double value);
/// The path, printable, and truncated if it is longer than a message should be.
std::string short_path(const std::filesystem::path& path);

}  // namespace reel::char_lm
