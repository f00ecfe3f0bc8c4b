#include <reel/autograd/error.h>

#include <fmt/format.h>

namespace reel {

std::string Site::str() const { return file ? fmt::format("{}:{}", file, line) : "unknown place"; }

}  // namespace reel
