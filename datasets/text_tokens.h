#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include <reel/datasets/text.h>
#include <reel/datasets/token_source.h>

namespace reel::datasets {

/// The symbols that occur in a text file, which need not fit into memory. Throws as TextTokens
/// does.
Vocabulary vocabulary_of(const std::filesystem::path& path, TextMode mode = TextMode::utf8);

/// The tokens of a text file that need not fit into memory: those that are asked for are read and
/// encoded then. A text of UTF-8 takes 8 bytes of memory for every 1024 symbols, one of bytes none.
///
/// The file must not change meanwhile; a change is found, as a FileError, where the text gets
/// shorter or is not UTF-8 or has an unknown symbol.
class TextTokens : public TokenSource {
 public:
  /// Reads the file once to check it, unless it is one of bytes and the vocabulary has all of them.
  /// Throws FileError if it is missing, not a regular file or empty, in mode `utf8` also if it is
  /// UTF-16 or UTF-32, contains a NUL or is not UTF-8, or if a symbol is not in the vocabulary,
  /// naming its offset.
  TextTokens(const std::filesystem::path& path, const Vocabulary& vocabulary);
  ~TextTokens() override;
  TextTokens(TextTokens&&) noexcept;
  TextTokens& operator=(TextTokens&&) = delete;

  Index size() const override { return size_; }
  /// Throws FileError if the file changed.
  void read(Index begin, std::span<std::int32_t> to) const override;

 private:
  struct Source;  // the file, and a lock, as its position is part of its state

  std::unique_ptr<Source> source_;
  TextMode mode_;
  std::vector<std::int32_t> ranks_;     // of symbols; -1 for unknown ones
  std::vector<std::uint64_t> offsets_;  // in bytes, of every 1024th symbol and of the end
  Index size_ = 0;
};

}  // namespace reel::datasets
