#include <reel/nn/sizes.h>

#include <fmt/format.h>

#include <reel/autograd/error.h>

namespace reel::nn {

void require_positive(const char* module,
                      std::initializer_list<std::pair<const char*, Index>> sizes) {
  for (const auto& [name, size] : sizes)
    if (size <= 0)
      throw ValueError(fmt::format("{}: {} must be positive, not {}", module, name, size));
}

void require_rate(const char* module, double rate) {
  if (!(rate >= 0 && rate < 1))
    throw ValueError(fmt::format("{}: the dropout rate must be in [0, 1), not {}", module, rate));
}

}  // namespace reel::nn
