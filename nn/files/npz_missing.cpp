// In place of npz.cpp where libzip was not found.
#include <reel/nn/files/npy.h>

namespace reel::nn {
namespace {

[[noreturn]] void fail(const char* function, Site site) {
  throw ValueError(std::string(function) +
                       ": Reel was built without libzip; install it (libzip-dev on Debian) and "
                       "build Reel again, or use safetensors",
                   site);
}

}  // namespace

NamedTensors load_npz(const Location&, Site site) { fail("load_npz", site); }

void save_npz(const Location&, const NamedTensors&, Site site) { fail("save_npz", site); }

}  // namespace reel::nn
