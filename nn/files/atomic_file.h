#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace reel::nn {

/// Writes a file so that at any moment, a crash or a full disk included, its name stands for the
/// complete old content or the complete new one: a temporary file in the same directory is written,
/// synced to the disk and renamed.
///
/// Every member function throws FileError, with the path and the system's reason. The old file is
/// then intact and the temporary one gone once this object is. The one exception is a failure to
/// sync the directory at the very end, when the new file is in place already; the message says so.
class AtomicFile {
 public:
  /// Opens the temporary file. `path` may exist only as a regular file.
  explicit AtomicFile(std::filesystem::path path);
  /// Removes the temporary file unless it was committed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends to the temporary file.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Gives the file its name. Nothing can be written afterwards.
  void commit();

 private:
  [[noreturn]] void fail(std::string_view what) const;
  void sync_directory() const;

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

/// Replaces the whole content of a file as AtomicFile does.
void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace reel::nn
