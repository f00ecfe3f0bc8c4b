#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
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

/// A vocabulary of parts of words by byte-pair encoding (Sennrich et al., "Neural machine
/// translation of rare words with subword units", ACL 2016), over bytes: every file can be encoded,
/// and decoded to itself.
///
/// Tokens 0 .. 255 are the bytes; each further one is a pair of earlier tokens. Training replaces
/// the pair that occurs most often by a new token, again and again; of several the one whose first
/// occurrence in the text comes first. No token reaches over the end of a word, which is after each
/// whitespace byte (space, \t, \n, \v, \f, \r), nor has more than 128 bytes.
class BytePairs {
 public:
  /// The two tokens that one is made of.
  using Pair = std::array<std::int32_t, 2>;

  static constexpr Index bytes = 256;          ///< the tokens that are bytes
  static constexpr Index most = 1'000'000;     ///< the most tokens
  static constexpr std::size_t longest = 128;  ///< the most bytes of a token

  /// Learns a vocabulary of `size` tokens from a text; of fewer if no pair occurs twice any more.
  /// The time is that of n log n for n bytes of different words, whatever the size. Throws
  /// ValueError unless 256 <= size <= `most`, and for more than 2^31 - 1 bytes of different words.
  static BytePairs train(std::string_view text, Arg<Index> size, Site site = {});
  /// Reads the file that `save` wrote. Throws FileError if it is anything else, with the line.
  static BytePairs load(const std::filesystem::path& path);

  /// Writes a text file, replaced as a whole: a line "byte_pairs N", then for each of the N pairs
  /// in order a line with its two tokens. Throws FileError.
  void save(const nn::Location& where) const;

  Index size() const { return bytes + static_cast<Index>(pairs_.size()); }
  /// The pairs that tokens from 256 on are made of.
  const std::vector<Pair>& pairs() const { return pairs_; }
  /// The bytes of a token. Throws ValueError for one outside 0 .. size() - 1.
  const std::string& token(Arg<Index> token, Site site = {}) const;

  /// The tokens of a text: in each word the pairs are replaced in the order in which they were
  /// learned, each from left to right. Takes the time of n log n for n bytes.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// The bytes of tokens. Throws ValueError for one outside 0 .. size() - 1.
  std::string decode(std::span<const std::int32_t> tokens, Site site = {}) const;

  bool operator==(const BytePairs& other) const { return pairs_ == other.pairs_; }

 private:
  BytePairs();
  // Whether a pair of tokens may become the next one: it is new and not too long.
  bool can_append(Pair pair) const;
  void append(Pair pair);

  std::vector<Pair> pairs_;
  std::vector<std::string> tokens_;
  std::unordered_map<std::uint64_t, std::int32_t> token_of_;  // by the key of a pair
};

}  // namespace reel::datasets
