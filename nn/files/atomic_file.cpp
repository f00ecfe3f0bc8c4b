#include <reel/nn/files/atomic_file.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include <reel/autograd/error.h>
#include <reel/nn/files/file.h>

namespace reel::nn {
namespace {

// The prefix of the names of a file's temporary files, which leaves room for the suffix. What it
// keeps of a long name ends with a whole character.
std::string temporary_prefix(const std::string& name) {
  std::size_t length = std::min<std::size_t>(name.size(), 200);
  while (length > 0 && length < name.size() && (name[length] & 0xc0) == 0x80) --length;
  return fmt::format(".{}.", name.substr(0, length));
}

std::string temporary_name(const std::string& name) {
  static std::atomic<unsigned> count = 0;
  return fmt::format("{}{}-{}.tmp", temporary_prefix(name), system::process_id(), count++);
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
  for (int links = 0; links < 40; ++links) {
    const auto target = system::read_link(where.directory(), name);
    if (!target) return errno == 0 ? std::optional(name) : std::nullopt;
    name = name.parent_path() / *target;
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
    name = path->filename();
    directory = system::open_directory(where.directory(), parent);
  }
  ~Target() {
    if (!temporary.empty()) system::remove(directory, temporary);
    if (directory != -1) system::close(directory);
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  // Creates the temporary file. Returns its descriptor, or -1.
  int create(unsigned permissions) {
    while (true) {
      const auto free = system::from_utf8(temporary_name(system::utf8(name)));
      const int descriptor =
          system::open(directory, free, O_WRONLY | O_CREAT | O_EXCL, permissions);
      if (descriptor != -1) temporary = free;
      if (descriptor != -1 || errno != EEXIST) return descriptor;
    }
  }

  // Renames the temporary file to its final name.
  bool rename() {
    if (!system::rename(directory, temporary, name)) return false;
    temporary.clear();
    return true;
  }

  int directory = -1;                     // where there is none, errno has the reason
  std::filesystem::path name, temporary;  // the second is empty if there is none
};

AtomicFile::AtomicFile(const Location& where) : where_(where) {
  const auto old = status_of(where);
  if (!old && errno != ENOENT) fail("cannot write");
  if (old) require_regular(where, *old, "cannot write");
  target_ = std::make_unique<Target>(where);
  if (target_->directory == -1) fail("cannot write");
  const unsigned permissions = old ? old->permissions : 0666;
  const int descriptor = target_->create(permissions);
  if (descriptor == -1) fail("cannot write");
  file_ = std::make_unique<File>(File::adopt(where, descriptor, "cannot write"));
  if (old) file_->set_permissions(permissions);  // the umask is for new files only
}

AtomicFile::~AtomicFile() = default;

void AtomicFile::write(std::span<const std::byte> bytes) { file_->write(bytes); }

void AtomicFile::commit() {
  file_->sync();
  file_->close();
  if (!target_->rename()) fail("cannot replace");
  if (!system::sync_directory(target_->directory))
    fail("written, but may not survive a power failure, its directory cannot be synced");
}

void AtomicFile::fail(std::string_view what) const {
  throw FileError(fmt::format("{}: {}: {}", where_.str(), what, std::strerror(errno)));
}

void AtomicFile::remove_leftovers(const Location& where) {
  const Target target(where);
  if (target.directory == -1) return;
  const std::string prefix = temporary_prefix(system::utf8(target.name));
  for (const auto& name : system::names_in(target.directory))
    if (is_temporary(system::utf8(name), prefix)) system::remove(target.directory, name);
}

void write_file(const Location& where, std::string_view content) {
  AtomicFile file(where);
  file.write(content);
  file.commit();
}

}  // namespace reel::nn
