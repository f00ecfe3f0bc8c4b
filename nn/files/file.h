#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <reel/nn/files/location.h>
#include <reel/nn/files/system.h>

namespace reel::nn {

using system::FileStatus;

/// The status of what is at a location, following symbolic links. Empty if there is nothing or the
/// system cannot tell, with the reason in errno.
std::optional<FileStatus> status_of(const Location& where);

/// Throws FileError unless it is a regular file; `cannot` is "cannot read" or "cannot write".
void require_regular(const Location& where, const FileStatus& status, std::string_view cannot);

/// An open file descriptor. Every function throws FileError with the path and the reason; short
/// reads and writes are continued.
class File {
 public:
  /// Opens it as openat(2) does.
  File(const Location& where, int flags, unsigned permissions = 0666);
  /// The same for a file that must be regular or new, without blocking on the other end of a pipe.
  static File regular(const Location& where, int flags, unsigned permissions = 0666);
  /// Takes ownership of a descriptor; `cannot` as in require_regular.
  static File adopt(const Location& where, int descriptor, std::string_view cannot) {
    return {where, cannot, descriptor};
  }
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;

  FileStatus status() const;
  std::uint64_t size() const { return status().size; }
  /// Fills `to`, or as much of it as the file still has. Returns the number of bytes read.
  std::size_t read(std::span<std::byte> to);
  /// Sets the position of the next `read`.
  void seek(std::uint64_t offset);
  void write(std::span<const std::byte> bytes);
  void resize(std::uint64_t size);
  void set_permissions(unsigned permissions);
  void sync();
  void close();

 private:
  File(const Location& where, std::string_view cannot, int descriptor);
  [[noreturn]] void fail() const;
  void require(bool done) const {
    if (!done) fail();
  }

  Location where_;
  std::string_view cannot_;
  int descriptor_;
};

}  // namespace reel::nn
