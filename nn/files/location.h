#pragma once

#include <concepts>
#include <filesystem>
#include <string>
#include <utility>

namespace reel::nn {

/// An open directory: it stays the same one for its lifetime, even if it is renamed.
class Directory {
 public:
  /// Throws FileError if it cannot be opened.
  explicit Directory(std::filesystem::path path);
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  /// Locks it for the lifetime of this object; returns false if another process holds the lock.
  /// Throws FileError if locking fails.
  bool lock();

  /// The path with which it was opened.
  const std::filesystem::path& path() const { return path_; }
  /// Its current path: `path()` unless it was moved, or if the system cannot tell.
  std::filesystem::path path_now() const;
  /// Whether it was removed since it was opened.
  bool is_deleted() const;
  int descriptor() const { return descriptor_; }

 private:
  std::filesystem::path path_;
  int descriptor_, lock_ = -1;
};

/// Where a file is: at a path, or under a name in an open directory, which must outlive this. The
/// latter stays valid if the directory is renamed. Nothing is looked up before it is used.
class Location {
 public:
  template <std::convertible_to<std::filesystem::path> Path>
  Location(const Path& path) : path_(path), name_(path_) {}
  Location(const Directory& directory, const std::string& name)
      : directory_(directory.descriptor()), path_(directory.path() / name), name_(name) {}

  /// The name for openat(2) and similar calls, and the descriptor that it is relative to.
  const std::filesystem::path& name() const { return name_; }
  int directory() const { return directory_; }

  const std::filesystem::path& path() const { return path_; }
  /// The path for a message, with unprintable characters escaped; truncated after 300 bytes.
  std::string str() const;
  /// Whether anything exists there, following symbolic links. Throws FileError if the system cannot
  /// tell: a directory on the way is not accessible, or links form a cycle.
  bool exists() const;
  /// Whether a symbolic link is there, wherever it leads.
  bool is_link() const;

 private:
  static const int working_directory;

  int directory_ = working_directory;
  std::filesystem::path path_, name_;
};

}  // namespace reel::nn
