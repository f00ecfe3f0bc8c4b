#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include <reel/nn/files/location.h>

namespace reel::nn {

class File;

/// Writes a file so that at any moment, a crash or a full disk included, its name stands for the
/// complete old content or the complete new one: a temporary file in the same directory is written,
/// synced to the disk and renamed. The directory is opened at the beginning, so the file is written
/// where it was then, also if the directory is renamed meanwhile. A symbolic link is followed, and
/// the file that it leads to replaced. A file that was there hands on its permissions.
///
/// Every member function throws FileError, with the path and the system's reason. The old file is
/// then intact and the temporary one gone once this object is. The one exception is a failure to
/// sync the directory at the very end, when the new file is in place already; the message says so.
/// (A process that does not ignore SIGXFSZ is ended where `ulimit -f` is exceeded, and then the
/// temporary file stays.)
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
  /// Gives the file its name. Nothing can be written afterwards.
  void commit();

  /// Removes what processes that were killed have left of this file. Only for whom nobody else
  /// writes it.
  static void remove_leftovers(const Location& where);

 private:
  struct Target;  // the directory, the name in it, and the temporary file

  [[noreturn]] void fail(std::string_view what) const;
  void sync_directory() const;

  Location where_;
  std::unique_ptr<Target> target_;
  std::unique_ptr<File> file_;
};

/// Replaces the whole content of a file as AtomicFile does.
void write_file(const Location& where, std::string_view content);

}  // namespace reel::nn
