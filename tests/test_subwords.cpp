// Vocabularies of words and of byte pairs.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include <reel/autograd/rng.h>
#include <reel/datasets/byte_pairs.h>
#include <reel/datasets/text.h>
#include <reel/datasets/words.h>

#include "shared_data.h"
#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using namespace reel::datasets;
using namespace reel::testing;
using doctest::Contains;

namespace {

using Tokens = std::vector<std::int32_t>;
using Words = std::vector<std::string>;

std::string repeated(std::string_view word, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += word;
  return text;
}

// A text of random bytes of a small alphabet, in which many pairs occur equally often.
std::string random_text(Rng& rng, std::string_view alphabet, Index length) {
  std::string text;
  for (Index i = 0; i < length; ++i)
    text += alphabet[static_cast<std::size_t>(rng.integer(alphabet.size()))];
  return text;
}

bool is_space(std::int32_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

// Byte pairs by the words of their definition: every step counts all pairs of the whole text anew,
// in the order in which they occur.
struct PlainBytePairs {
  explicit PlainBytePairs(std::string_view text, std::size_t size) {
    for (int byte = 0; byte < 256; ++byte) lengths.push_back(1);
    Tokens symbols = bytes_of(text);
    while (lengths.size() < size) {
      const auto best = most_frequent(symbols);
      if (best.count < 2) break;
      pairs.push_back(best.pair);
      replace(symbols, best.pair, static_cast<std::int32_t>(lengths.size()));
      lengths.push_back(length(best.pair));
      ends_word.push_back(ends(best.pair[1]));
    }
  }

  Tokens encode(std::string_view text) const {
    Tokens symbols = bytes_of(text);
    for (std::size_t i = 0; i < pairs.size(); ++i)
      replace(symbols, pairs[i], static_cast<std::int32_t>(256 + i));
    return symbols;
  }

  std::vector<BytePairs::Pair> pairs;

 private:
  struct Best {
    BytePairs::Pair pair{};
    int count = 0;
  };

  static Tokens bytes_of(std::string_view text) {
    Tokens symbols;
    for (const char c : text) symbols.push_back(static_cast<unsigned char>(c));
    return symbols;
  }
  bool ends(std::int32_t symbol) const {
    return symbol < 256 ? is_space(symbol) : ends_word[static_cast<std::size_t>(symbol - 256)];
  }
  std::size_t length(BytePairs::Pair pair) const {
    return lengths[static_cast<std::size_t>(pair[0])] + lengths[static_cast<std::size_t>(pair[1])];
  }
  Best most_frequent(const Tokens& symbols) const {
    std::map<BytePairs::Pair, int> counts;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
      if (const BytePairs::Pair pair{symbols[i], symbols[i + 1]};
          !ends(symbols[i]) && length(pair) <= BytePairs::longest)
        ++counts[pair];
    Best best;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
      if (const auto found = counts.find({symbols[i], symbols[i + 1]});
          found != counts.end() && found->second > best.count)
        best = {found->first, found->second};
    return best;
  }
  static void replace(Tokens& symbols, BytePairs::Pair pair, std::int32_t token) {
    std::size_t to = 0;
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      const bool is_here =
          i + 1 < symbols.size() && symbols[i] == pair[0] && symbols[i + 1] == pair[1];
      symbols[to++] = is_here ? token : symbols[i];
      if (is_here) ++i;
    }
    symbols.resize(to);
  }

  std::vector<std::size_t> lengths;
  std::vector<bool> ends_word;
};

}  // namespace

TEST_CASE("words: <unk> and <eos>, then by falling count and by bytes") {
  const WordVocabulary words("the cat saw the dog\n\n a <unk> saw the cat \n");
  CHECK(words.words() == Words{"<unk>", "<eos>", "the", "cat", "saw", "a", "dog"});
  CHECK(words.counts() == std::vector<Index>{1, 3, 3, 2, 2, 1, 1});
  CHECK(words.size() == 7);
  CHECK(words.token("cat") == 3);
  CHECK(words.token("cow") == WordVocabulary::unknown);
  CHECK(words.token("<eos>") == WordVocabulary::end_of_line);
  CHECK(words.encode("the dog\nsaw\ta  cow\r\n") == Tokens{2, 6, 1, 4, 5, 0, 1});
  CHECK(words.encode("the dog") == Tokens{2, 6, 1});
  CHECK(words.encode("\n\n") == Tokens{1, 1});
  CHECK(words.encode("").empty());
  CHECK(words.decode(Tokens{2, 6, 1, 1, 4, 0, 1}) == "the dog\n\nsaw <unk>\n");
  CHECK_THROWS_WITH_AS(words.decode(Tokens{7}),
                       Contains("there is no token 7 in a vocabulary of 7 words (" __FILE__),
                       ValueError);
  CHECK_THROWS_AS(words.decode(Tokens{-1}), ValueError);
}

TEST_CASE("words: rare ones and those beyond the size are unknown") {
  const std::string text = "a a a b b c c d\n";
  const WordVocabulary frequent(text, {.min_count = 2});
  CHECK(frequent.words() == Words{"<unk>", "<eos>", "a", "b", "c"});
  CHECK(frequent.counts() == std::vector<Index>{1, 1, 3, 2, 2});
  const WordVocabulary few(text, {.max_size = 4});
  CHECK(few.words() == Words{"<unk>", "<eos>", "a", "b"});
  CHECK(few.counts() == std::vector<Index>{3, 1, 3, 2});
  CHECK(few.encode("a c d b") == Tokens{2, 0, 0, 3, 1});
}

TEST_CASE("words: what decode gives is encoded to the same tokens") {
  Rng rng(1);
  for (int i = 0; i < 100; ++i) {
    const std::string text = random_text(rng, "abc  \n\t\r", 200) + "a";
    const WordVocabulary words(text, {.min_count = 1 + rng.integer(3)});
    const Tokens tokens = words.encode(text);
    REQUIRE(words.encode(words.decode(tokens)) == tokens);
    REQUIRE(std::accumulate(words.counts().begin(), words.counts().end(), Index{0}) ==
            std::ssize(tokens));
  }
}

TEST_CASE("words: texts and options that make no vocabulary are refused") {
  const auto message = [](std::string_view text, const WordOptions& options = {}) {
    return message_without_line<ValueError>([&] { WordVocabulary(text, options); });
  };
  CHECK(message("") == "WordVocabulary: the text has no words");
  CHECK(message(" \n\n") == "WordVocabulary: the text has no words");
  CHECK(message("a\xff") == "WordVocabulary: the text is not valid UTF-8 at byte 1");
  CHECK(message({"a\0b", 3}) == "WordVocabulary: there is a NUL at byte 1 of the text");
  CHECK(message("a", {.min_count = 0}).ends_with("min_count is 0, but has to be 1 or more"));
  CHECK(message("a", {.max_size = 2})
            .ends_with("max_size is 2, but has to be 3 or more, or 0 for any number of words"));
  CHECK(WordVocabulary("a", {.min_count = 2}).size() == 2);
}

TEST_CASE("words: a file gives the same vocabulary, and the same file") {
  const TemporaryDirectory directory;
  Rng rng(2);
  for (int i = 0; i < 30; ++i) {
    const std::string text = random_text(rng, "abc \n", 300);
    const WordVocabulary words("x " + text, {.min_count = 1 + rng.integer(2)});
    words.save(directory / "words.txt");
    const WordVocabulary loaded = WordVocabulary::load(directory / "words.txt");
    REQUIRE(loaded == words);
    REQUIRE(loaded.encode(text) == words.encode(text));
  }
  WordVocabulary("the \xc3\xa9t\xc3\xa9 the").save(directory / "words.txt");
  CHECK(content_of(directory / "words.txt") ==
        "words 4\n<unk>\t0\n<eos>\t1\nthe\t2\n\xc3\xa9t\xc3\xa9\t1\n");
}

TEST_CASE("byte pairs: the example of Sennrich et al.") {
  // Algorithm 1 of the paper; a space in place of its end of word.
  const std::string text =
      repeated("low ", 5) + repeated("lower ", 2) + repeated("newest ", 6) + repeated("widest ", 3);
  const BytePairs pairs = BytePairs::train(text, 256 + 10);
  Words merged;
  for (Index token = 256; token < pairs.size(); ++token) merged.push_back(pairs.token(token));
  CHECK(merged == Words{"es", "est", "est ", "lo", "low", "ne", "new", "newest ", "low ", "wi"});
  CHECK(pairs.encode("lowest newest low ") == Tokens{260, 258, 263, 264});
  CHECK(pairs.decode(Tokens{260, 258}) == "lowest ");
}

TEST_CASE("byte pairs: every file is decoded to itself") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  Rng rng(3);
  const BytePairs pairs = BytePairs::train(random_text(rng, "ab \n", 500) + all + all, 300);
  CHECK(pairs.size() == 300);
  for (int i = 0; i < 50; ++i) {
    const std::string text = random_text(rng, i % 2 ? all : "ab \n", rng.integer(300));
    const Tokens tokens = pairs.encode(text);
    REQUIRE(pairs.decode(tokens) == text);
    REQUIRE(std::ranges::all_of(tokens, [](std::int32_t t) { return t >= 0 && t < 300; }));
  }
  CHECK(pairs.encode("").empty());
  CHECK(pairs.decode({}).empty());
  CHECK_THROWS_WITH_AS(pairs.decode(Tokens{300}),
                       Contains("there is no token 300 in a vocabulary of 300 (" __FILE__),
                       ValueError);
  CHECK_THROWS_AS(pairs.token(-1), ValueError);
}

TEST_CASE("byte pairs: as by the words of their definition, on random texts") {
  Rng rng(4);
  const Index trials = rounds(150, 3000);
  for (Index i = 0; i < trials; ++i) {
    const std::string_view alphabet = std::array<std::string_view, 4>{
        "a", "ab", "aab \n", "abcdefgh  "}[static_cast<std::size_t>(rng.integer(4))];
    const std::string text = random_text(rng, alphabet, rng.integer(400));
    const auto size = static_cast<std::size_t>(256 + rng.integer(120));
    const PlainBytePairs plain(text, size);
    const BytePairs pairs = BytePairs::train(text, size);
    CAPTURE(text);
    REQUIRE(pairs.pairs() == plain.pairs);
    REQUIRE(pairs.encode(text) == plain.encode(text));
    const std::string other = random_text(rng, alphabet, 100);
    REQUIRE(pairs.encode(other) == plain.encode(other));
    REQUIRE(pairs.decode(pairs.encode(other)) == other);
  }
}

TEST_CASE("byte pairs: fewer tokens if nothing occurs twice, and none that is too long") {
  CHECK(BytePairs::train("abcdef", 1000).size() == 256);
  CHECK(BytePairs::train("", 1000).size() == 256);
  CHECK(BytePairs::train("a b a b", 1000).size() == 257);  // "a " occurs twice, then nothing
  const BytePairs pairs = BytePairs::train(std::string(100'000, 'a'), 1000);
  for (Index token = 256; token < pairs.size(); ++token)
    CHECK(pairs.token(token).size() <= BytePairs::longest);
  CHECK(pairs.token(256 + 6) == std::string(128, 'a'));
  for (const Index bad : {Index{0}, Index{255}, BytePairs::most + 1})
    CHECK_THROWS_WITH_AS(BytePairs::train("ab", bad), Contains("not in 256 .. 1000000 (" __FILE__),
                         ValueError);
}

TEST_CASE("byte pairs: a file gives the same vocabulary, and the same file") {
  const TemporaryDirectory directory;
  Rng rng(5);
  const BytePairs pairs = BytePairs::train(random_text(rng, "abcd ", 3000), 400);
  REQUIRE(pairs.size() == 400);
  pairs.save(directory / "pairs");
  const BytePairs loaded = BytePairs::load(directory / "pairs");
  CHECK(loaded == pairs);
  const std::string text = random_text(rng, "abcd ", 500);
  CHECK(loaded.encode(text) == pairs.encode(text));
  BytePairs::train("aaab aaab ", 258).save(directory / "pairs");
  CHECK(content_of(directory / "pairs") == "byte_pairs 2\n97 97\n256 97\n");
}

TEST_CASE("byte pairs: a megabyte without whitespace takes no more than n log n") {
  Rng rng(6);
  const std::string text = random_text(rng, "abcd", sanitized ? 100'000 : 1'000'000);
  BytePairs pairs = BytePairs::train("", 256);
  CHECK(cpu_seconds([&] { pairs = BytePairs::train(text, 1256); }) < 60);
  Tokens tokens;
  CHECK(cpu_seconds([&] { tokens = pairs.encode(text); }) < 30);
  CHECK(pairs.decode(tokens) == text);
}

TEST_CASE("byte pairs: a real text") {
  const auto path = shared_data("tinyshakespeare.txt");
  if (!path) return;
  const std::string text = read_text(*path);
  const BytePairs pairs = BytePairs::train(text, 2000);
  CHECK(pairs.size() == 2000);
  const Tokens tokens = pairs.encode(text);
  CHECK(pairs.decode(tokens) == text);
  CHECK(tokens.size() * 5 < text.size() * 2);
}
