#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include <reel/nn/files/location.h>

namespace reel::nn {

class File;

/// Replaces a file atomically: at any moment, even after a crash or on a full disk, its name refers
/// to the complete old or the complete new content. A temporary file in the same directory is
/// written, synced to disk and renamed. The directory is opened at the beginning, so the file is
/// written there even if the directory is renamed meanwhile. A symbolic link is followed, and its
/// target replaced. The permissions of an existing file are kept.
///
/// Every member function throws FileError, with the path and the system's reason. The old file is
/// then intact, and the temporary one is removed with this object. The one exception is a failure
/// to sync the directory at the very end, when the new file is already in place; the message says
/// so. (If `ulimit -f` is exceeded, a process that does not ignore SIGXFSZ is killed, and the
/// temporary file remains.)
class AtomicFile {
 public:
  /// Opens the temporary file. `where` may exist only as a regular file.
  explicit AtomicFile(const Location& where);
  /// Removes the temporary file unless it was committed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends to the temporary file.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Renames the file into place. Nothing can be written afterwards.
  void commit();

  /// Removes temporary files of this file left behind by killed processes. Call only if no other
  /// process writes it.
  static void remove_leftovers(const Location& where);

 private:
  struct Target;  // the directory, the name in it, and the temporary file

  [[noreturn]] void fail(std::string_view what) const;

  Location where_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<File> file_;
};

/// Replaces the whole content of a file as AtomicFile does.
void write_file(const Location& where, std::string_view content);

}  // namespace reel::nn
