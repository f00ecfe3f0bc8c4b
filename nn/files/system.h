#pragma once

#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What the file classes need of the operating system, with the meaning that POSIX gives it, in
/// posix.cpp and windows.cpp. Functions that fail return -1, false or nothing, with the reason in
/// errno; they retry interrupted calls. A file is at a path, or under a name in an open directory.
namespace reel::nn::system {

enum class FileKind { regular, directory, pipe, socket, device };

struct FileStatus {
  FileKind kind = FileKind::regular;
  std::uint64_t size = 0;
  unsigned permissions = 0;  ///< "rwxrwxrwx" in octal digits; not used on Windows
  std::uint64_t device = 0, number = 0, links = 0;

  bool is_regular() const { return kind == FileKind::regular; }
  bool is_directory() const { return kind == FileKind::directory; }
  bool is_same_file(const FileStatus& other) const {
    return device == other.device && number == other.number;
  }
};

/// A path in UTF-8, and the other way, which std::filesystem does by the code page on Windows.
std::string utf8(const std::filesystem::path& path);
std::filesystem::path from_utf8(std::string_view text);

/// In place of an open directory: paths are relative to the process's.
#ifdef AT_FDCWD
inline constexpr int working_directory = AT_FDCWD;
#else
inline constexpr int working_directory = -2;
#endif

/// The status of what a name leads to, following symbolic links.
std::optional<FileStatus> status(int directory, const std::filesystem::path& name);
std::optional<FileStatus> status(int descriptor);
bool is_link(int directory, const std::filesystem::path& name);
/// What a symbolic link contains. Empty without an error in errno (0) where there is no link.
std::optional<std::filesystem::path> read_link(int directory, const std::filesystem::path& name);

/// Opens a file as openat(2) does, for this process alone. It does not wait for the other end of a
/// pipe if `waits` is false.
int open(int directory, const std::filesystem::path& name, int flags, unsigned permissions,
         bool waits = true);
std::ptrdiff_t read(int descriptor, std::byte* to, std::size_t count);
std::ptrdiff_t write(int descriptor, const std::byte* from, std::size_t count);
bool seek(int descriptor, std::uint64_t offset);
bool resize(int descriptor, std::uint64_t size);
bool set_permissions(int descriptor, unsigned permissions);
bool sync(int descriptor);
bool close(int descriptor);

/// Opens a directory to look up names in it, which does not need the permission to list them.
int open_directory(int directory, const std::filesystem::path& name);
/// The current path of an open directory, if the system can tell.
std::optional<std::filesystem::path> path_of(int directory);
std::vector<std::filesystem::path> names_in(int directory);
/// The descriptor that has the lock of a directory until it is closed; EWOULDBLOCK if another
/// process has it.
int lock(int directory);
/// Makes what was renamed in a directory survive a power failure.
bool sync_directory(int directory);
bool make_directory(int directory, const std::filesystem::path& name);

/// Renames within a directory; a file of the new name is replaced atomically.
bool rename(int directory, const std::filesystem::path& from, const std::filesystem::path& to);
bool remove(int directory, const std::filesystem::path& name);

std::uint64_t process_id();
/// Of the machine, in bytes.
std::uint64_t physical_memory();

}  // namespace reel::nn::system
