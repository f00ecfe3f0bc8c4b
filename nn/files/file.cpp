#include <reel/nn/files/file.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include <reel/autograd/error.h>

namespace reel::nn {

std::optional<struct stat> status_of(const Location& where) {
  struct stat status {};
  const int result =
      retried([&] { return ::fstatat(where.directory(), where.name().c_str(), &status, 0); });
  return result == -1 ? std::nullopt : std::optional(status);
}

void require_regular(const Location& where, const struct stat& status, std::string_view cannot) {
  if (S_ISREG(status.st_mode)) return;
  throw FileError(fmt::format("{}: {}: it is {}, not a regular file", where.str(), cannot,
                              S_ISDIR(status.st_mode)    ? "a directory"
                              : S_ISFIFO(status.st_mode) ? "a pipe"
                              : S_ISSOCK(status.st_mode) ? "a socket"
                                                         : "a device"));
}

File::File(const Location& where, int flags, mode_t mode)
    : where_(where),
      cannot_((flags & O_ACCMODE) == O_RDONLY ? "cannot read" : "cannot write"),
      descriptor_(retried([&] {
        return ::openat(where.directory(), where.name().c_str(), flags | O_CLOEXEC, mode);
      })) {
  require(descriptor_ != -1);
}

File File::regular(const Location& where, int flags, mode_t mode) {
  const std::string_view cannot = (flags & O_ACCMODE) == O_RDONLY ? "cannot read" : "cannot write";
  // Checked before opening, as opening a device may have side effects, and again afterwards, as the
  // file may have been replaced meanwhile.
  if (const auto status = status_of(where)) require_regular(where, *status, cannot);
  File file(where, flags | O_NONBLOCK, mode);
  require_regular(where, file.status(), cannot);
  return file;
}

File::~File() {
  if (descriptor_ != -1) ::close(descriptor_);
}

File::File(File&& other) noexcept
    : where_(std::move(other.where_)),
      cannot_(other.cannot_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

struct stat File::status() const {
  struct stat status {};
  require(::fstat(descriptor_, &status) == 0);
  return status;
}

std::size_t File::read(std::span<std::byte> to) {
  std::size_t count = 0;
  while (count < to.size()) {
    const ssize_t more =
        retried([&] { return ::read(descriptor_, to.data() + count, to.size() - count); });
    require(more != -1);
    if (more == 0) break;
    count += static_cast<std::size_t>(more);
  }
  return count;
}

void File::seek(std::uint64_t offset) {
  require(::lseek(descriptor_, static_cast<off_t>(offset), SEEK_SET) != -1);
}

void File::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written =
        retried([&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    require(written != -1);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void File::resize(std::uint64_t size) {
  require(retried([&] { return ::ftruncate(descriptor_, static_cast<off_t>(size)); }) == 0);
}

void File::set_mode(mode_t mode) {
  require(retried([&] { return ::fchmod(descriptor_, mode); }) == 0);
}

void File::sync() {
  require(retried([&] { return ::fsync(descriptor_); }) == 0);
}

void File::close() {
  // close() interrupted by a signal has still closed the descriptor.
  require(::close(std::exchange(descriptor_, -1)) == 0 || errno == EINTR);
}

void File::fail() const {
  throw FileError(fmt::format("{}: {}: {}", where_.str(), cannot_, std::strerror(errno)));
}

}  // namespace reel::nn
