#include "words.h"

#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/message.h>
#include <reel/nn/files/location.h>

namespace reel::char_lm {

std::string counted(Index number, std::string_view unit) {
  return fmt::format("{} {}{}", grouped(number), unit, number == 1 ? "" : "s");
}

std::string grouped(Index number) {
  std::string digits = fmt::format("{}", number);
  for (auto i = static_cast<Index>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<std::size_t>(i), 1, ',');
  return digits;
}

std::string number(double value) { return std::isnan(value) ? "nan" : fmt::format("{}", value); }

std::string short_path(const std::filesystem::path& path) { return nn::Location(path).str(); }

}  // namespace reel::char_lm
