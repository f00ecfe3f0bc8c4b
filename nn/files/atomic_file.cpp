#include <reel/nn/files/atomic_file.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <reel/autograd/error.h>

namespace reel::nn {
namespace {

// A system call, again when a signal interrupted it.
template <class Call>
auto retried(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> count = 0;
  const std::string name = path.filename().string().substr(0, 200);  // leaves room for the suffix
  return path.parent_path() / fmt::format(".{}.{}-{}.tmp", name, ::getpid(), count++);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path_, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw FileError(path_.string() +
                    ": cannot write: there is something that is not a regular file");
  do {
    temporary_ = temporary_name(path_);
    descriptor_ = retried(
        [&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
  } while (descriptor_ == -1 && errno == EEXIST);
  if (descriptor_ == -1) fail("cannot write");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ != -1) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written =
        retried([&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    if (written == -1) fail("cannot write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  if (retried([&] { return ::fsync(descriptor_); }) == -1) fail("cannot write");
  if (::close(std::exchange(descriptor_, -1)) == -1 && errno != EINTR) fail("cannot write");
  if (std::rename(temporary_.c_str(), path_.c_str()) == -1) fail("cannot replace");
  temporary_.clear();
  sync_directory();
}

void AtomicFile::sync_directory() const {
  const auto directory = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  const int descriptor =
      retried([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  const bool synced = descriptor != -1 && retried([&] { return ::fsync(descriptor); }) != -1;
  const int reason = errno;
  if (descriptor != -1) ::close(descriptor);
  errno = reason;
  if (!synced && reason != EINVAL)  // which is a file system that cannot sync directories
    fail("written, but may not survive a power failure, its directory cannot be synced");
}

void AtomicFile::fail(std::string_view what) const {
  const int reason = errno;
  throw FileError(fmt::format("{}: {}: {}", path_.string(), what, std::strerror(reason)));
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

}  // namespace reel::nn
