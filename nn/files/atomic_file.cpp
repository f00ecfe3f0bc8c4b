#include <reel/nn/files/atomic_file.h>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/nn/files/file.h>

namespace reel::nn {
namespace {

// The prefix of the names of a file's temporary files.
std::string temporary_prefix(const std::string& name) {
  return fmt::format(".{}.", name.substr(0, 200));  // leaves room for the suffix
}

std::string temporary_name(const std::string& name) {
  static std::atomic<unsigned> count = 0;
  return fmt::format("{}{}-{}.tmp", temporary_prefix(name), ::getpid(), count++);
}

// Whether `name` is one that temporary_name makes.
bool is_temporary(std::string_view name, std::string_view prefix) {
  constexpr std::string_view suffix = ".tmp";
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return false;
  name.remove_prefix(prefix.size());
  if (name.size() <= suffix.size()) return false;
  name.remove_suffix(suffix.size());
  const auto is_number = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  };
  const std::size_t dash = name.find('-');
  return dash != std::string_view::npos && is_number(name.substr(0, dash)) &&
         is_number(name.substr(dash + 1));
}

// The name, relative to the same directory, after resolving all symbolic links. Empty if the system
// cannot tell, with the reason in errno: a file in the place of a link would be another one.
std::optional<std::filesystem::path> without_links(const Location& where) {
  std::filesystem::path name = where.name();
  std::array<char, PATH_MAX> target;
  for (int links = 0; links < 40; ++links) {
    const ssize_t length = retried([&] {
      return ::readlinkat(where.directory(), name.c_str(), target.data(), target.size());
    });
    if (length == -1 && (errno == EINVAL || errno == ENOENT)) return name;  // no link, or nothing
    if (length == -1) return std::nullopt;
    name = name.parent_path() / std::string(target.data(), static_cast<std::size_t>(length));
  }
  errno = ELOOP;
  return std::nullopt;
}

}  // namespace

struct AtomicFile::Target {
  explicit Target(const Location& where) {
    const auto path = without_links(where);
    if (!path) return;
    const std::filesystem::path parent = path->has_parent_path() ? path->parent_path() : ".";
    name = path->filename().string();
    // Write permission on a directory does not imply read permission.
    directory = retried([&] {
      return ::openat(where.directory(), parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    });
  }
  ~Target() {
    if (!temporary.empty()) ::unlinkat(directory, temporary.c_str(), 0);
    if (directory != -1) ::close(directory);
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // The directory opened for reading, or -1.
  int listing() const {
    return retried([&] { return ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  }

  // Creates the temporary file. Returns its descriptor, or -1.
  int create(mode_t mode) {
    while (true) {
      const std::string free = temporary_name(name);
      const int descriptor = retried([&] {
        return ::openat(directory, free.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
      });
      if (descriptor != -1) temporary = free;
      if (descriptor != -1 || errno != EEXIST) return descriptor;
    }
  }

  // Renames the temporary file to its final name.
  bool rename() {
    if (retried([&] { return ::renameat(directory, temporary.c_str(), directory, name.c_str()); }))
      return false;
    temporary.clear();
    return true;
  }

  int directory = -1;           // where there is none, errno has the reason
  std::string name, temporary;  // the second is empty if there is none
};

AtomicFile::AtomicFile(const Location& where) : where_(where) {
  const auto old = status_of(where);
  if (!old && errno != ENOENT) fail("cannot write");
  if (old) require_regular(where, *old, "cannot write");
  target_ = std::make_unique<Target>(where);
  if (target_->directory == -1) fail("cannot write");
  const mode_t mode = old ? old->st_mode & 07777 : 0666;
  const int descriptor = target_->create(mode);
  if (descriptor == -1) fail("cannot write");
  file_ = std::make_unique<File>(File::adopt(where, descriptor, "cannot write"));
  if (old) file_->set_mode(mode);  // the umask is for new files only
}

AtomicFile::~AtomicFile() = default;

void AtomicFile::write(std::span<const std::byte> bytes) { file_->write(bytes); }

void AtomicFile::commit() {
  file_->sync();
  file_->close();
  if (!target_->rename()) fail("cannot replace");
  sync_directory();
}

void AtomicFile::sync_directory() const {
  const int listing = target_->listing();
  const bool synced = listing != -1 && retried([&] { return ::fsync(listing); }) != -1;
  const int reason = errno;
  if (listing != -1) ::close(listing);
  errno = reason;
  if (!synced && reason != EINVAL)  // EINVAL: the file system cannot sync directories
    fail("written, but may not survive a power failure, its directory cannot be synced");
}

void AtomicFile::fail(std::string_view what) const {
  throw FileError(fmt::format("{}: {}: {}", where_.str(), what, std::strerror(errno)));
}

void AtomicFile::remove_leftovers(const Location& where) {
  const Target target(where);
  const int listing = target.directory == -1 ? -1 : target.listing();
  DIR* entries = listing == -1 ? nullptr : ::fdopendir(listing);
  if (!entries) {
    if (listing != -1) ::close(listing);
    return;
  }
  const std::string prefix = temporary_prefix(target.name);
  std::vector<std::string> found;
  while (const dirent* entry = ::readdir(entries))
    if (is_temporary(entry->d_name, prefix)) found.emplace_back(entry->d_name);
  for (const std::string& name : found) ::unlinkat(target.directory, name.c_str(), 0);
  ::closedir(entries);
}

void write_file(const Location& where, std::string_view content) {
  AtomicFile file(where);
  file.write(content);
  file.commit();
}

}  // namespace reel::nn
