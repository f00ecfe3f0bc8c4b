#ifndef _WIN32

#include <reel/nn/files/system.h>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <memory>

namespace reel::nn::system {
namespace {

// Calls again for as long as a signal interrupts the call.
template <class Call>
auto retried(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

FileKind kind_of(mode_t mode) {
  if (S_ISREG(mode)) return FileKind::regular;
  if (S_ISDIR(mode)) return FileKind::directory;
  if (S_ISFIFO(mode)) return FileKind::pipe;
  return S_ISSOCK(mode) ? FileKind::socket : FileKind::device;
}

std::optional<FileStatus> converted(int result, const struct stat& status) {
  if (result == -1) return std::nullopt;
  return FileStatus{.kind = kind_of(status.st_mode),
                    .size = static_cast<std::uint64_t>(status.st_size),
                    .permissions = status.st_mode & 07777u,
                    .device = static_cast<std::uint64_t>(status.st_dev),
                    .number = static_cast<std::uint64_t>(status.st_ino),
                    .links = static_cast<std::uint64_t>(status.st_nlink)};
}

// Where a system can open a directory that may not be listed.
#if defined(O_PATH)
constexpr int to_look_up = O_PATH;
#elif defined(O_SEARCH)
constexpr int to_look_up = O_SEARCH;
#else
constexpr int to_look_up = O_RDONLY;
#endif

int open_to_list(int directory) {
  return retried([&] { return ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
}

}  // namespace

std::optional<FileStatus> status(int directory, const std::filesystem::path& name) {
  struct stat status {};
  return converted(retried([&] { return ::fstatat(directory, name.c_str(), &status, 0); }), status);
}

std::optional<FileStatus> status(int descriptor) {
  struct stat status {};
  return converted(::fstat(descriptor, &status), status);
}

bool is_link(int directory, const std::filesystem::path& name) {
  struct stat status {};
  return ::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISLNK(status.st_mode);
}

std::optional<std::filesystem::path> read_link(int directory, const std::filesystem::path& name) {
  std::array<char, PATH_MAX> target;
  const ssize_t length =
      retried([&] { return ::readlinkat(directory, name.c_str(), target.data(), target.size()); });
  if (length != -1) return std::string(target.data(), static_cast<std::size_t>(length));
  if (errno == EINVAL || errno == ENOENT) errno = 0;  // no link, or nothing
  return std::nullopt;
}

int open(int directory, const std::filesystem::path& name, int flags, unsigned permissions,
         bool waits) {
  flags |= O_CLOEXEC | (waits ? 0 : O_NONBLOCK);
  return retried(
      [&] { return ::openat(directory, name.c_str(), flags, static_cast<mode_t>(permissions)); });
}

std::ptrdiff_t read(int descriptor, std::byte* to, std::size_t count) {
  return retried([&] { return ::read(descriptor, to, count); });
}

std::ptrdiff_t write(int descriptor, const std::byte* from, std::size_t count) {
  return retried([&] { return ::write(descriptor, from, count); });
}

bool seek(int descriptor, std::uint64_t offset) {
  return ::lseek(descriptor, static_cast<off_t>(offset), SEEK_SET) != -1;
}

bool resize(int descriptor, std::uint64_t size) {
  return retried([&] { return ::ftruncate(descriptor, static_cast<off_t>(size)); }) == 0;
}

bool set_permissions(int descriptor, unsigned permissions) {
  return retried([&] { return ::fchmod(descriptor, static_cast<mode_t>(permissions)); }) == 0;
}

bool sync(int descriptor) {
#if defined(F_FULLFSYNC)  // what macOS calls fsync leaves the data in the drive's own memory
  if (retried([&] { return ::fcntl(descriptor, F_FULLFSYNC); }) != -1) return true;
#endif
  return retried([&] { return ::fsync(descriptor); }) == 0;
}

bool close(int descriptor) {
  return ::close(descriptor) == 0 || errno == EINTR;  // an interrupted close has closed
}

int open_directory(int directory, const std::filesystem::path& name) {
  return retried(
      [&] { return ::openat(directory, name.c_str(), to_look_up | O_DIRECTORY | O_CLOEXEC); });
}

std::optional<std::filesystem::path> path_of(int directory) {
#if defined(F_GETPATH)
  std::array<char, PATH_MAX> path;
  if (::fcntl(directory, F_GETPATH, path.data()) == -1) return std::nullopt;
  return path.data();
#else
  std::error_code unknown;
  auto path = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", directory), unknown);
  return unknown ? std::nullopt : std::optional(std::move(path));
#endif
}

std::vector<std::filesystem::path> names_in(int directory) {
  const int listing = open_to_list(directory);
  if (listing == -1) return {};
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(listing), ::closedir);
  if (!entries) ::close(listing);
  std::vector<std::filesystem::path> names;
  while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr)
    names.emplace_back(entry->d_name);
  return names;
}

int lock(int directory) {
  const int descriptor = open_to_list(directory);
  if (descriptor == -1 || retried([&] { return ::flock(descriptor, LOCK_EX | LOCK_NB); }) == 0)
    return descriptor;
  const int reason = errno;
  ::close(descriptor);
  errno = reason;
  return -1;
}

bool sync_directory(int directory) {
  const int listing = open_to_list(directory);
  if (listing == -1) return false;
  const bool synced = sync(listing) || errno == EINVAL;  // the file system cannot sync directories
  const int reason = errno;
  ::close(listing);
  errno = reason;
  return synced;
}

bool make_directory(int directory, const std::filesystem::path& name) {
  return ::mkdirat(directory, name.c_str(), 0777) == 0;
}

bool rename(int directory, const std::filesystem::path& from, const std::filesystem::path& to) {
  return retried([&] { return ::renameat(directory, from.c_str(), directory, to.c_str()); }) == 0;
}

bool remove(int directory, const std::filesystem::path& name) {
  return ::unlinkat(directory, name.c_str(), 0) == 0;
}

std::uint64_t process_id() { return static_cast<std::uint64_t>(::getpid()); }

std::uint64_t physical_memory() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace reel::nn::system

#endif
