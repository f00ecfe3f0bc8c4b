#include "output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <span>

#include <reel/autograd/error.h>
#include <reel/nn/files/system.h>

namespace reel::char_lm {

void print(std::string_view text) {
  while (!text.empty()) {
    const auto bytes = std::as_bytes(std::span(text));
    constexpr int standard_output = 1;
    const auto written = nn::system::write(standard_output, bytes.data(), bytes.size());
    if (written == -1)
      throw FileError(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace reel::char_lm
