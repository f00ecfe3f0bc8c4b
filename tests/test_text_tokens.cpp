// Windows over texts that are not in memory, and windows made on a thread.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>

#include <reel/autograd/rng.h>
#include <reel/datasets/prefetched_windows.h>
#include <reel/datasets/text_tokens.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using namespace reel::datasets;
using namespace reel::testing;
using doctest::Contains;

namespace {

using Tokens = std::vector<std::int32_t>;

// A text of symbols of one to four bytes.
std::string random_text(Index length) {
  const std::vector<std::string> symbols{
      "a", "b", "\n", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
  Rng rng(1);
  std::string text;
  for (Index i = 0; i < length; ++i)
    text += symbols[static_cast<std::size_t>(rng.integer(symbols.size()))];
  return text;
}

Tokens all_of(const TokenSource& source) {
  Tokens tokens(static_cast<std::size_t>(source.size()));
  source.read(0, tokens);
  return tokens;
}

void check_same(const Window& a, const Window& b) {
  REQUIRE(same_bits(a.inputs, b.inputs));
  REQUIRE(same_bits(a.targets, b.targets));
}

}  // namespace

TEST_CASE("text tokens: those of the text in memory, wherever blocks end") {
  const TemporaryDirectory directory;
  for (const Index length : {1, 1023, 1024, 1025, 400'000}) {  // more than a block of 1 MiB
    const std::string text = random_text(length);
    const auto path = directory.file("text", text);
    for (const TextMode mode : {TextMode::utf8, TextMode::bytes}) {
      const Vocabulary vocabulary(text, mode);
      REQUIRE(vocabulary_of(path, mode) == vocabulary);
      const TextTokens tokens(path, vocabulary);
      const Tokens expected = vocabulary.encode(text);
      REQUIRE(tokens.size() == std::ssize(expected));
      REQUIRE(all_of(tokens) == expected);
      Rng rng(2);
      for (int i = 0; i < 100; ++i) {
        const Index begin = rng.integer(tokens.size() + 1);
        Tokens part(static_cast<std::size_t>(rng.integer(tokens.size() - begin + 1)));
        tokens.read(begin, part);
        REQUIRE(std::ranges::equal(
            part, std::span(expected).subspan(static_cast<std::size_t>(begin), part.size())));
      }
    }
  }
}

TEST_CASE("text tokens: windows are those of the text in memory") {
  const TemporaryDirectory directory;
  const std::string text = random_text(20'000);
  const Vocabulary vocabulary(text, TextMode::utf8);
  const TextTokens source(directory.file("text", "\xef\xbb\xbf" + text), vocabulary);
  const Tokens tokens = vocabulary.encode(text);
  const Windows expected(tokens, 7, 50), windows(source, 7, 50);
  REQUIRE(windows.count() == expected.count());
  for (Index i = 0; i < windows.count(); ++i) check_same(windows[i], expected[i]);
  CHECK_THROWS_WITH_AS(Windows(source, 20'000, 5), Contains("the text is too short: 20000 symbols"),
                       ValueError);
}

TEST_CASE("text tokens: parts of a source are those of the tokens in memory") {
  const Tokens tokens = Vocabulary("abc", TextMode::utf8).encode("abcabccbaacbbca");
  const TokensInMemory source(tokens);
  for (const double train_frac : {0.01, 0.5, 0.8, 1.0}) {
    const Split expected = split(tokens, train_frac);
    const SourceSplit parts = split(source, train_frac);
    CHECK(std::ranges::equal(all_of(parts.train), expected.train));
    CHECK(std::ranges::equal(all_of(parts.valid), expected.valid));
  }
  const SourceSplit halves = split(source, 0.5);
  const SourceSplit quarters = split(halves.valid, 0.5);
  CHECK(all_of(quarters.train) == Tokens{1, 0, 0, 2});
  Tokens one(1);
  quarters.valid.read(3, one);
  CHECK(one.front() == tokens.back());
  CHECK_THROWS_WITH_AS(split(source, 0), Contains("split: train_frac is 0, not in (0, 1]"),
                       ValueError);
}

TEST_CASE("text tokens: a file of 5 GB, most of it holes") {
  const TemporaryDirectory directory;
  const auto path = directory.file("sparse", "begin");
  constexpr std::uint64_t size = 5'000'000'001;
  std::filesystem::resize_file(path, size);
  constexpr std::uint64_t place = 4'500'000'000;  // the first token of stream 9
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(place);
    file << "end";
  }
  std::vector<char32_t> bytes(256);
  std::iota(bytes.begin(), bytes.end(), char32_t{0});
  const TextTokens tokens(path, Vocabulary(bytes, TextMode::bytes));
  CHECK(tokens.size() == size);
  const Windows windows(tokens, 10, 3);
  CHECK(windows.count() == 166'666'666);
  const Window first = windows[0];
  CHECK(first.inputs.at({0, 0}) == 'b');
  CHECK(first.inputs.at({1, 9}) == 'n');
  CHECK(first.targets.at({1, 9}) == 'd');
  CHECK(first.inputs.at({1, 5}) == 0);
  CHECK(windows[166'666'665].targets.at({2, 9}) == 0);
}

TEST_CASE("text tokens: what read_text refuses is refused, and unknown symbols") {
  const TemporaryDirectory directory;
  const Vocabulary letters("abc\n", TextMode::utf8), bytes("abc\n", TextMode::bytes);
  const auto message = [&](const std::string& content, const Vocabulary& vocabulary) {
    const auto path = directory.file("text", content);
    const std::string text = message_of<FileError>([&] { TextTokens(path, vocabulary); });
    return text.substr(std::min(text.size(), path.string().size() + 2));
  };
  CHECK(message("", letters) == "the file is empty; there is no text in it");
  CHECK(message("\xef\xbb\xbf", letters) == "the file is empty; there is no text in it");
  CHECK(message("", bytes) == "the file is empty; there is no text in it");
  const std::string remedy = "; read it as bytes (--bytes on the command line)";
  CHECK(message("ab\xff", letters) == "not valid UTF-8 at byte 2" + remedy);
  CHECK(message("ab\xe2\x82", letters) == "not valid UTF-8 at byte 2" + remedy);
  CHECK(message("abc" + std::string(1, '\0') + "abc", letters) ==
        "a binary file, not text (a NUL at byte 3)" + remedy);
  CHECK(contains(message("\xff\xfe"
                         "a",
                         letters),
                 "UTF-16 text, not UTF-8; convert it"));
  CHECK(message("abd", letters) ==
        "the character 'd' (U+0064) at byte 2 is not in the vocabulary of 4 symbols");
  CHECK(message("abd", bytes) == "the byte 0x64 at byte 2 is not in the vocabulary of 4 symbols");
  CHECK(message(std::string(1 << 20, 'a') + "\xff", letters) ==
        "not valid UTF-8 at byte 1048576" + remedy);
  CHECK_THROWS_WITH_AS(TextTokens(directory / "none", letters), Contains("No such file"),
                       FileError);
  CHECK_THROWS_WITH_AS(vocabulary_of(directory.file("text", "")), Contains("is empty"), FileError);
}

TEST_CASE("text tokens: a file that changes meanwhile is an error") {
  const TemporaryDirectory directory;
  const auto path = directory.file("text", std::string(5000, 'a'));
  for (const TextMode mode : {TextMode::utf8, TextMode::bytes}) {
    directory.file("text", std::string(5000, 'a'));
    const TextTokens tokens(path, Vocabulary("ab", mode));
    CHECK(all_of(tokens).size() == 5000);
    directory.file("text", std::string(5000, 'c'));
    CHECK_THROWS_WITH_AS(all_of(tokens), Contains("the text changed while it was in use"),
                         FileError);
    directory.file("text", std::string(100, 'a'));
    CHECK_THROWS_WITH_AS(all_of(tokens), Contains("the text changed"), FileError);
  }
}

TEST_CASE("prefetched windows: those of a thread are the same in the same order") {
  const TemporaryDirectory directory;
  const std::string text = random_text(30'000);
  const Vocabulary vocabulary(text, TextMode::utf8);
  const TextTokens source(directory.file("text", text), vocabulary);
  const Windows windows(source, 4, 25);
  for (const Index first : {Index{0}, Index{7}, windows.count()})
    for (const Index ahead : {1, 2, 1000}) {
      PrefetchedWindows prefetched(windows, first, ahead);
      Index i = first;
      while (const auto window = prefetched.next()) check_same(*window, windows[i++]);
      CHECK(i == windows.count());
      CHECK_FALSE(prefetched.next());
    }
  for (int taken = 0; taken < 5; ++taken) {  // left before their end
    PrefetchedWindows prefetched(windows);
    for (int i = 0; i < taken; ++i) REQUIRE(prefetched.next());
  }
  CHECK_THROWS_AS(PrefetchedWindows(windows, -1), ValueError);
  CHECK_THROWS_AS(PrefetchedWindows(windows, windows.count() + 1), ValueError);
  CHECK_THROWS_AS(PrefetchedWindows(windows, 0, 0), ValueError);
}

TEST_CASE("prefetched windows: an error on the thread is thrown by next, after what was made") {
  class Failing : public TokenSource {
   public:
    Index size() const override { return 101; }
    void read(Index begin, std::span<std::int32_t> to) const override {
      if (begin >= 30) throw FileError("no more");
      std::iota(to.begin(), to.end(), static_cast<std::int32_t>(begin));
    }
  };
  const Failing source;
  const Windows windows(source, 1, 10);
  PrefetchedWindows prefetched(windows);
  for (int i = 0; i < 3; ++i) CHECK(prefetched.next()->inputs.at({0, 0}) == 10 * i);
  for (int i = 0; i < 2; ++i)
    CHECK_THROWS_WITH_AS(prefetched.next(), Contains("no more"), FileError);
}
