#include "output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include <reel/autograd/error.h>

namespace reel::char_lm {

void print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0)
    throw FileError(std::string("cannot write to standard output: ") + std::strerror(errno));
}

}  // namespace reel::char_lm
