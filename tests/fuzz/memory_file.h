#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace reel::fuzz {

/// A file in memory, for what reads from a path.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content = {}) : descriptor_(::memfd_create("input", 0)) {
    if (descriptor_ == -1) throw std::runtime_error("there is no file in memory");
    while (!content.empty()) {
      const ssize_t written = ::write(descriptor_, content.data(), content.size());
      if (written == -1) throw std::runtime_error("a file in memory cannot be written");
      content.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

}  // namespace reel::fuzz
