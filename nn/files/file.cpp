#include <reel/nn/files/file.h>

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <reel/autograd/error.h>

namespace reel::nn {
namespace {

std::string_view cannot_use(int flags) {
  return (flags & (O_WRONLY | O_RDWR)) == 0 ? "cannot read" : "cannot write";
}

std::string_view with_article(system::FileKind kind) {
  switch (kind) {
    case system::FileKind::directory:
      return "a directory";
    case system::FileKind::pipe:
      return "a pipe";
    case system::FileKind::socket:
      return "a socket";
    default:
      return "a device";
  }
}

}  // namespace

std::optional<FileStatus> status_of(const Location& where) {
  return system::status(where.directory(), where.name());
}

void require_regular(const Location& where, const FileStatus& status, std::string_view cannot) {
  if (status.is_regular()) return;
  throw FileError(fmt::format("{}: {}: it is {}, not a regular file", where.str(), cannot,
                              with_article(status.kind)));
}

File::File(const Location& where, std::string_view cannot, int descriptor)
    : where_(where), cannot_(cannot), descriptor_(descriptor) {
  require(descriptor_ != -1);
}

File::File(const Location& where, int flags, unsigned permissions)
    : File(where, cannot_use(flags),
           system::open(where.directory(), where.name(), flags, permissions)) {}

File File::regular(const Location& where, int flags, unsigned permissions) {
  const std::string_view cannot = cannot_use(flags);
  // Checked before opening, as opening a device may have side effects, and again afterwards, as the
  // file may have been replaced meanwhile.
  if (const auto status = status_of(where)) require_regular(where, *status, cannot);
  constexpr bool waits = false;
  File file = adopt(where, system::open(where.directory(), where.name(), flags, permissions, waits),
                    cannot);
  require_regular(where, file.status(), cannot);
  return file;
}

File::~File() {
  if (descriptor_ != -1) system::close(descriptor_);
}

File::File(File&& other) noexcept
    : where_(std::move(other.where_)),
      cannot_(other.cannot_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

FileStatus File::status() const {
  const auto status = system::status(descriptor_);
  require(status.has_value());
  return *status;
}

std::size_t File::read(std::span<std::byte> to) {
  std::size_t count = 0;
  while (count < to.size()) {
    const auto more = system::read(descriptor_, to.data() + count, to.size() - count);
    require(more != -1);
    if (more == 0) break;
    count += static_cast<std::size_t>(more);
  }
  return count;
}

void File::seek(std::uint64_t offset) { require(system::seek(descriptor_, offset)); }

void File::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto written = system::write(descriptor_, bytes.data(), bytes.size());
    require(written != -1);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void File::resize(std::uint64_t size) { require(system::resize(descriptor_, size)); }

void File::set_permissions(unsigned permissions) {
  require(system::set_permissions(descriptor_, permissions));
}

void File::sync() { require(system::sync(descriptor_)); }

void File::close() { require(system::close(std::exchange(descriptor_, -1))); }

void File::fail() const {
  throw FileError(fmt::format("{}: {}: {}", where_.str(), cannot_, std::strerror(errno)));
}

}  // namespace reel::nn
