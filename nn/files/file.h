#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <reel/nn/files/location.h>

namespace reel::nn {

/// A system call that returns -1 and sets errno, again for as long as signals interrupt it.
template <class Call>
auto retried(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

/// What stands at a place, links followed; nothing where nothing can be found.
std::optional<struct stat> status_of(const Location& where);

/// Throws FileError unless it is a regular file; `cannot` is "cannot read" or "cannot write".
void require_regular(const Location& where, const struct stat& status, std::string_view cannot);

/// An open file of the system. Every function throws FileError with the path and the reason; calls
/// that a signal interrupts are made again, short ones go on.
class File {
 public:
  /// Opens it as openat(2) does.
  File(const Location& where, int flags, mode_t mode = 0666);
  /// The same for a file that has to be a regular one or new, and without waiting for whoever is at
  /// the other end of a pipe.
  static File regular(const Location& where, int flags, mode_t mode = 0666);
  /// Takes over a descriptor; `cannot` as in require_regular.
  static File adopt(const Location& where, int descriptor, std::string_view cannot) {
    return {where, cannot, descriptor};
  }
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;

  struct stat status() const;
  std::uint64_t size() const { return static_cast<std::uint64_t>(status().st_size); }
  /// Fills `to`, or as much of it as the file still has. Returns how much.
  std::size_t read(std::span<std::byte> to);
  /// The next `read` begins there.
  void seek(std::uint64_t offset);
  void write(std::span<const std::byte> bytes);
  void resize(std::uint64_t size);
  void set_mode(mode_t mode);
  void sync();
  void close();

 private:
  File(const Location& where, std::string_view cannot, int descriptor)
      : where_(where), cannot_(cannot), descriptor_(descriptor) {}
  [[noreturn]] void fail() const;
  void require(bool done) const {
    if (!done) fail();
  }

  Location where_;
  std::string_view cannot_;
  int descriptor_;
};

}  // namespace reel::nn
