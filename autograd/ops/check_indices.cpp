#include <reel/autograd/ops/check_indices.h>

#include <fmt/format.h>

namespace reel {

void check_indices(std::string_view op, std::string_view noun, std::string_view things,
                   std::span<const std::int32_t> indices, Index count,
                   std::optional<std::int32_t> exempt) {
  for (std::size_t i = 0; i < indices.size(); ++i)
    if ((indices[i] < 0 || indices[i] >= count) && indices[i] != exempt)
      throw ValueError(fmt::format("{}: {} {} at position {} is not among the {} {}{}", op, noun,
                                   indices[i], i, count, things,
                                   count > 0 ? fmt::format(" (0 to {})", count - 1) : ""));
}

void check_indices(std::string_view caller, std::string_view noun, std::string_view things,
                   std::span<const std::int32_t> indices, Index count,
                   std::optional<std::int32_t> exempt, Site site) try {
  check_indices(caller, noun, things, indices, count, exempt);
} catch (const ValueError& e) {
  throw ValueError(e.what(), site);
}

}  // namespace reel
