#include "output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <reel/autograd/error.h>
#include <reel/nn/files/file.h>

namespace reel::char_lm {

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written =
        nn::retried([&] { return ::write(STDOUT_FILENO, text.data(), text.size()); });
    if (written == -1)
      throw FileError(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace reel::char_lm
