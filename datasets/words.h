#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <reel/autograd/argument.h>
#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>
#include <reel/nn/files/location.h>

namespace reel::datasets {

/// The options of WordVocabulary.
struct WordOptions {
  Index min_count = 1;  ///< words that occur less often are unknown
  Index max_size = 0;   ///< the most tokens, with <unk> and <eos>; 0 for any number
};

/// The words of a text, which are what is between whitespace (space, \t, \v, \f, \r); every line
/// ends with an <eos>, also the last one, and one without words. That is how the Penn Treebank and
/// WikiText files are read, in which rare words are already <unk>.
///
/// Token 0 is <unk>, for every word that is not in the vocabulary, and 1 is <eos>; the others
/// follow by falling count, words of equal count in the order of their bytes.
class WordVocabulary {
 public:
  static constexpr std::int32_t unknown = 0, end_of_line = 1;

  /// The words of a text. Throws ValueError if it has no words, is not UTF-8, or contains a NUL,
  /// and for a min_count below 1 or a max_size below 3 other than 0.
  explicit WordVocabulary(std::string_view text, const WordOptions& options = {}, Site site = {});
  /// Reads the file that `save` wrote. Throws FileError if it is anything else, with the line.
  static WordVocabulary load(const std::filesystem::path& path);

  /// Writes a text file, replaced as a whole: a line "words N", then for each token in order a line
  /// with the word, a tab and its count. Throws FileError.
  void save(const nn::Location& where) const;

  Index size() const { return static_cast<Index>(words_.size()); }
  /// The words in the order of their tokens.
  const std::vector<std::string>& words() const { return words_; }
  /// How often each token occurs in the text: that of <unk> is the sum over all unknown words.
  const std::vector<Index>& counts() const { return counts_; }
  /// The token of a word; `unknown` if there is none.
  std::int32_t token(std::string_view word) const;

  /// The tokens of a text, with an <eos> at the end of each line.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// The words of tokens, separated by spaces, and a newline for each <eos>. Throws ValueError for
  /// a token outside 0 .. size() - 1.
  std::string decode(std::span<const std::int32_t> tokens, Site site = {}) const;

  bool operator==(const WordVocabulary& other) const {
    return words_ == other.words_ && counts_ == other.counts_;
  }

 private:
  // Looks a string_view up without making a string of it.
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view word) const {
      return std::hash<std::string_view>()(word);
    }
  };

  WordVocabulary() = default;
  void append(std::string_view word, Index count);

  std::vector<std::string> words_;
  std::vector<Index> counts_;
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> tokens_;
};

}  // namespace reel::datasets
