#pragma once

#include <concepts>
#include <filesystem>
#include <string>
#include <utility>

namespace reel::nn {

/// An open directory: the same one for as long as this lives, whatever becomes of its name.
class Directory {
 public:
  /// Throws FileError when it cannot be opened.
  explicit Directory(std::filesystem::path path);
  ~Directory();
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  /// Locks it until this is gone; false when another process has it locked. Throws FileError when
  /// the system cannot tell.
  bool lock();

  /// As it was opened.
  const std::filesystem::path& path() const { return path_; }
  /// Where it is now: `path()` unless it was moved. Where the system does not say, `path()`, too.
  std::filesystem::path path_now() const;
  int descriptor() const { return descriptor_; }

 private:
  std::filesystem::path path_;
  int descriptor_;
};

/// Where a file is: at a path, or under a name in an open directory, which has to outlive this.
/// The second stays right when the directory is renamed. Nothing is looked up before it is used.
class Location {
 public:
  template <std::convertible_to<std::filesystem::path> Path>
  Location(const Path& path) : path_(path), name_(path_) {}
  Location(const Directory& directory, const std::string& name)
      : directory_(directory.descriptor()), path_(directory.path() / name), name_(name) {}

  /// The name for openat(2) and its like, and the descriptor that it is relative to.
  const std::filesystem::path& name() const { return name_; }
  int directory() const { return directory_; }

  const std::filesystem::path& path() const { return path_; }
  /// The path for a message, with escapes for what a terminal does not show.
  std::string str() const;
  /// Whether there is anything.
  bool exists() const;

 private:
  static const int working_directory;

  int directory_ = working_directory;
  std::filesystem::path path_, name_;
};

}  // namespace reel::nn
