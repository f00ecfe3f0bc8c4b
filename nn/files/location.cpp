#include <reel/nn/files/location.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/nn/files/file.h>

namespace reel::nn {

Directory::Directory(std::filesystem::path path)
    : path_(std::move(path)),
      descriptor_(
          retried([&] { return ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); })) {
  if (descriptor_ == -1)
    throw FileError(
        fmt::format("{}: cannot open: {}", printable(path_.string()), std::strerror(errno)));
}

Directory::~Directory() { ::close(descriptor_); }

bool Directory::lock() {
  if (retried([&] { return ::flock(descriptor_, LOCK_EX | LOCK_NB); }) == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  throw FileError(
      fmt::format("{}: cannot lock: {}", printable(path_.string()), std::strerror(errno)));
}

std::filesystem::path Directory::path_now() const {
  struct stat here {
  }, there{};
  const bool same = ::fstat(descriptor_, &here) == 0 && ::stat(path_.c_str(), &there) == 0 &&
                    here.st_dev == there.st_dev && here.st_ino == there.st_ino;
  if (same) return path_;
  std::error_code unknown;
  const auto now =
      std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", descriptor_), unknown);
  return unknown ? path_ : now;
}

bool Directory::is_deleted() const {
  struct stat status {};
  return ::fstat(descriptor_, &status) == 0 && status.st_nlink == 0;
}

const int Location::working_directory = AT_FDCWD;

std::string Location::str() const {
  constexpr std::size_t longest = 300;
  return printable(path_.string(), longest);
}

bool Location::exists() const {
  if (status_of(*this)) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw FileError(fmt::format("{}: cannot read: {}", str(), std::strerror(errno)));
}

bool Location::is_link() const {
  struct stat status {};
  return ::fstatat(directory_, name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISLNK(status.st_mode);
}

}  // namespace reel::nn
