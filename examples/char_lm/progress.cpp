#include "progress.h"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>

namespace reel::char_lm {

std::map<std::string, double, std::less<>> numbers_of(const Progress& progress) {
  std::map<std::string, double, std::less<>> numbers;
  each_number(progress, [&](const char* name, auto number) {
    numbers.emplace(name, static_cast<double>(number));
  });
  return numbers;
}

Progress progress_of(const optim::RunState& checkpoint) {
  Progress progress;
  each_number(progress, [&](const char* name, auto& member) {
    const double number = checkpoint.number(name);
    if constexpr (std::is_same_v<decltype(member), Index&>) {
      if (!(number >= 0 && number < 0x1p53 && number == std::floor(number)))
        throw ValueError(fmt::format("its {} is {}, not a count", name, number));
      member = static_cast<Index>(number);
    } else {
      member = number;
    }
  });
  return progress;
}

}  // namespace reel::char_lm
