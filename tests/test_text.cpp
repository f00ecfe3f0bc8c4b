#include <doctest/doctest.h>
#include <fmt/format.h>

#include <limits>
#include <numeric>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/datasets/text.h>
#include <reel/datasets/windows.h>

#include "temporary_directory.h"

using namespace reel;
using namespace reel::datasets;
using doctest::Contains;

namespace {

using Tokens = std::vector<std::int32_t>;

Tokens counting(int n) {
  Tokens tokens(static_cast<std::size_t>(n));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

std::string utf8(std::u8string_view text) { return {text.begin(), text.end()}; }

}  // namespace

TEST_CASE("text: a file is read as it is") {
  const TemporaryDirectory directory;
  const std::string text = utf8(u8"na\u00efve \u20ac\r\n\U0001F600\tend");
  CHECK(read_text(directory.file("a.txt", text)) == text);
  const std::string all_bytes("\x00\xff\xc0\x80 abc", 8);
  CHECK(read_text(directory.file("b.bin", all_bytes), TextMode::bytes) == all_bytes);
  const std::string large(300'000, 'x');
  CHECK(read_text(directory.file("c.txt", large)) == large);
}

TEST_CASE("text: files that cannot be read say why") {
  const TemporaryDirectory directory;
  const auto message = [&](const std::filesystem::path& path) {
    return message_of<FileError>([&] { read_text(path); });
  };
  CHECK(message(directory / "none.txt") ==
        (directory / "none.txt").string() + ": cannot read: No such file or directory");
  CHECK(contains(message(directory.path()), ": is a directory"));
  CHECK(contains(message(directory.file("empty", "")), ": the file is empty"));
}

TEST_CASE("text: malformed UTF-8 is refused with its offset") {
  const TemporaryDirectory directory;
  const auto offset_of = [&](std::string_view bytes) {
    const auto path = directory.file("bad.txt", bytes);
    CHECK(read_text(path, TextMode::bytes) == bytes);
    const std::string message = message_of<FileError>([&] { read_text(path); });
    CAPTURE(message);
    CHECK(contains(message, path.string() + ": not valid UTF-8 at byte "));
    CHECK(contains(message, "--bytes"));
    return std::stoi(message.substr(message.find("byte ") + 5));
  };
  CHECK(offset_of("\x80") == 0);    // a lone continuation byte
  CHECK(offset_of("ab\xff") == 2);  // never valid in UTF-8
  CHECK(offset_of("ab\xfe!") == 2);
  CHECK(offset_of("a\xc0\xaf") == 1);  // overlong '/'
  CHECK(offset_of("a\xc1\xbf") == 1);
  CHECK(offset_of("a\xe0\x9f\xbf") == 1);      // overlong in three bytes
  CHECK(offset_of("a\xf0\x8f\xbf\xbf") == 1);  // overlong in four
  CHECK(offset_of("\xed\xa0\x80") == 0);       // the first surrogate
  CHECK(offset_of("\xed\xbf\xbf") == 0);       // the last
  CHECK(offset_of("\xf4\x90\x80\x80") == 0);   // U+110000
  CHECK(offset_of("\xf5\x80\x80\x80") == 0);
  CHECK(offset_of("\xf8\x88\x80\x80\x80") == 0);  // five bytes
  CHECK(offset_of("abc\xc3") == 3);               // truncated
  CHECK(offset_of("abc\xe2\x82") == 3);
  CHECK(offset_of("abc\xf0\x9f\x98") == 3);
  CHECK(offset_of("\xe2\x28\xa1") == 0);  // a continuation byte missing in the middle
  CHECK(offset_of("\xc3\xa9\xc3\x28") == 2);
}

TEST_CASE("text: the ends of every range of UTF-8 are accepted") {
  const TemporaryDirectory directory;
  const std::string text =
      utf8(u8"\u0001\u007f\u0080\u07ff\u0800\ud7ff\ue000\uffff") + utf8(u8"\U00010000\U0010ffff");
  CHECK(read_text(directory.file("ends.txt", text)) == text);
  const Vocabulary vocabulary(text, TextMode::utf8);
  CHECK(vocabulary.symbols() == std::vector<char32_t>{0x1, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000,
                                                      0xffff, 0x10000, 0x10ffff});
  CHECK(vocabulary.decode(vocabulary.encode(text)) == text);
}

TEST_CASE("text: a byte order mark is not text") {
  const TemporaryDirectory directory;
  const std::string mark = "\xef\xbb\xbf";
  CHECK(read_text(directory.file("a", mark + "a" + mark)) == "a" + mark);
  CHECK(read_text(directory.file("a", mark + "a"), TextMode::bytes) == mark + "a");
  CHECK(contains(message_of<FileError>([&] { read_text(directory.file("a", mark)); }), "is empty"));
  CHECK(contains(message_of<FileError>([&] { read_text(directory.file("a", mark + "ab\xff")); }),
                 "not valid UTF-8 at byte 5"));
}

TEST_CASE("text: other encodings are named, with the remedy") {
  const TemporaryDirectory directory;
  // Code points in units of `width` bytes.
  const auto encoded = [](std::u32string_view text, std::size_t width, bool big_endian) {
    std::string bytes;
    for (char32_t c : text)
      for (std::size_t k = 0; k < width; ++k)
        bytes += static_cast<char>(c >> 8 * (big_endian ? width - 1 - k : k));
    return bytes;
  };
  const auto message = [&](const std::string& content) {
    return message_of<FileError>([&] { read_text(directory.file("a", content)); });
  };
  const std::u32string text = U"\u0437\u0438\u043c\u0430, na\u00efve\n", mark = U"\ufeff";
  for (const std::size_t width : {2, 4})
    for (const bool big_endian : {false, true}) {
      const std::string name = width == 2 ? "UTF-16" : "UTF-32", end = big_endian ? "BE" : "LE";
      CHECK(contains(
          message(encoded(mark + U"\u6625\u590f", width, big_endian)),
          fmt::format(": {0} text, not UTF-8; convert it with iconv -f {0} -t UTF-8", name)));
      CHECK(contains(message(encoded(text, width, big_endian)),
                     fmt::format("iconv -f {}{} ", name, end)));
    }
  CHECK(contains(message(encoded({U"text\0", 5}, 2, false)), "a binary file"));
  CHECK(contains(message(encoded(U"\1\2\3", 2, false)), "a binary file"));
  CHECK(contains(message(std::string("text\0\0\0\0", 8)), "a binary file"));
  CHECK(contains(message(std::string("hello\0world\0", 12)), "a binary file"));
  CHECK(message(" \n \n") == "nothing was thrown");
  CHECK(message("1\t0\t1\t1\t0\t1\t1\t0\t1\n") == "nothing was thrown");
  CHECK(contains(message("caf\xe9"), "iconv -f ISO-8859-1"));
}

TEST_CASE("text: UTF-16 is told by its proportions, whatever single characters are in it") {
  const TemporaryDirectory directory;
  const auto message = [&](std::u16string_view text, bool big_endian) {
    std::string bytes;
    for (const char16_t unit : text) {
      const char high = static_cast<char>(unit >> 8), low = static_cast<char>(unit);
      bytes += big_endian ? high : low;
      bytes += big_endian ? low : high;
    }
    return message_of<FileError>([&] { read_text(directory.file("a", bytes)); });
  };
  for (const std::u16string_view text :
       {u"A dash \u2014 here", u"\u201cHello\u201d, he said", u"5 \u20ac", u"page\fpage",
        u"nice \U0001F30D day", u"\u6625\u7720\u4e0d\u89c9\u6653\u5904\u5904\u95fb\u557c\u9e1f",
        u"\u6625 \u7720 \u4e0d \u89c9 \u6653\n\u5904 \u5904 \u95fb \u557c \u9e1f\n",
        u"\u0441\u044a\u0435\u0448\u044c\u0436\u0435\u0449\u0451\u044d\u0442\u0438\u0445"})
    for (const bool big_endian : {false, true}) {
      CAPTURE(big_endian);
      CHECK(contains(message(text, big_endian), big_endian ? "UTF-16BE text" : "UTF-16LE text"));
    }
  CHECK(contains(message(u"a lone \xD800 surrogate", false), "a binary file"));
}

TEST_CASE("text: a binary file is read only to its first NUL") {
  const TemporaryDirectory directory;
  const auto path = directory.file("hole", "x");
  std::filesystem::resize_file(path, std::uintmax_t{1} << 31);
  CHECK(contains(message_of<FileError>([&] { read_text(path); }), "a binary file"));
  std::filesystem::resize_file(path, std::uintmax_t{1} << 42);
  CHECK(contains(message_of<FileError>([&] { read_text(path, TextMode::bytes); }),
                 "the text is too long"));
}

TEST_CASE("text: symbols in messages do nothing to a terminal") {
  for (const char32_t c :
       {0x00, 0x1b, 0x7f, 0x9b, 0xad, 0x200b, 0x202e, 0x2066, 0xfeff, 0xfffe, 0xe0001})
    CHECK(name_of(c, TextMode::utf8).starts_with("U+"));
  CHECK(name_of('a', TextMode::utf8) == "'a' (U+0061)");
  CHECK(name_of(0x1F600, TextMode::utf8) == utf8(u8"'\U0001F600' (U+1F600)"));
  CHECK(name_of(0x1b, TextMode::bytes) == "0x1B");
  CHECK(printable("a\x1b[31m\n\t\xff\xc2\x9b\\\"") == "a\\u001b[31m\\n\\t\\xff\\u009b\\\"");
  CHECK(printable(utf8(u8"\u00e9\U000e0001")) == utf8(u8"\u00e9\\U000e0001"));
  CHECK(printable(utf8(u8"ab\u00e9d"), 3) == "ab...");
  CHECK(in_quotes("a\"\\") == "\"a\\\"\\\\\"");
  CHECK(in_quotes(std::string(81, 'x')) == '"' + std::string(80, 'x') + "...\"");
  CHECK(in_quotes(std::string(80, 'x')) == '"' + std::string(80, 'x') + '"');
  CHECK(listed({"a", "b", "c", "d"}) == "a, b, c and 1 more");
}

TEST_CASE("text: a NUL makes a file binary") {
  const TemporaryDirectory directory;
  const auto path = directory.file("program", std::string_view("ELF\0\xff", 5));
  const std::string message = message_of<FileError>([&] { read_text(path); });
  CHECK(contains(message, "a binary file, not text (a NUL at byte 3)"));
  CHECK(contains(message, "--bytes"));
  CHECK(read_text(path, TextMode::bytes).size() == 5);
}

TEST_CASE("vocabulary: tokens are ranks of the distinct symbols") {
  const std::string text = utf8(u8"b\u00e9b\u00e9 ca");
  const Vocabulary vocabulary(text, TextMode::utf8);
  CHECK(vocabulary.symbols() == std::vector<char32_t>{' ', 'a', 'b', 'c', 0xe9});
  CHECK(vocabulary.size() == 5);
  CHECK(vocabulary.encode(text) == Tokens{2, 4, 2, 4, 0, 3, 1});
  CHECK(vocabulary.decode(Tokens{4, 1}) == utf8(u8"\u00e9a"));
  CHECK(vocabulary.encode("").empty());
  CHECK(vocabulary.decode({}).empty());

  const Vocabulary bytes(text, TextMode::bytes);
  CHECK(bytes.symbols() == std::vector<char32_t>{' ', 'a', 'b', 'c', 0xa9, 0xc3});
  CHECK(bytes.encode(text) == Tokens{2, 5, 4, 2, 5, 4, 0, 3, 1});
  CHECK(bytes.decode(bytes.encode(text)) == text);
}

TEST_CASE("vocabulary: it can be restored from its symbols") {
  const Vocabulary vocabulary("hello world", TextMode::utf8);
  CHECK(Vocabulary(vocabulary.symbols(), TextMode::utf8) == vocabulary);
  CHECK(Vocabulary(vocabulary.symbols(), TextMode::bytes) != vocabulary);
  CHECK(Vocabulary("hello", TextMode::utf8) != vocabulary);

  using Symbols = std::vector<char32_t>;
  const auto message = [](Symbols symbols, TextMode mode) {
    return message_of<ValueError>([&] { Vocabulary(std::move(symbols), mode); });
  };
  CHECK(contains(message({}, TextMode::utf8), "at least one symbol"));
  CHECK(contains(message({'b', 'a'}, TextMode::utf8), "must ascend"));
  CHECK(contains(message({'a', 'a'}, TextMode::utf8), "must ascend"));
  CHECK(contains(message({'a', 256}, TextMode::bytes), "symbol 256 of a vocabulary is not a byte"));
  CHECK(contains(message({'a', 0xd800}, TextMode::utf8), "not a Unicode code point"));
  CHECK(contains(message({0x110000}, TextMode::utf8), "not a Unicode code point"));
}

TEST_CASE("vocabulary: unknown symbols are named") {
  const Vocabulary vocabulary("abc", TextMode::utf8), bytes("abc", TextMode::bytes);
  const auto message = [](const Vocabulary& v, std::string_view text) {
    return message_of<ValueError>([&] { v.encode(text); });
  };
  CHECK(contains(message(vocabulary, utf8(u8"ab\u00e9")),
                 utf8(u8"the character '\u00e9' (U+00E9) at byte 2 is not in the vocabulary of 3 "
                      u8"symbols (" __FILE__ ":")));
  CHECK(contains(message(vocabulary, utf8(u8"\U0001F600")), "(U+1F600) at byte 0"));
  CHECK(contains(message(vocabulary, "a\n"), "the character U+000A at byte 1"));
  CHECK(contains(message(vocabulary, utf8(u8"\u0085")), "the character U+0085 at byte 0"));
  CHECK(contains(message(bytes, "a\xe9"), "the byte 0xE9 at byte 1"));
  CHECK(contains(message(vocabulary, "ab\xff"), "not valid UTF-8 at byte 2"));
  CHECK_THROWS_WITH_AS(Vocabulary("", TextMode::utf8),
                       Contains("a vocabulary needs a text that is not empty (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_WITH_AS(Vocabulary("a\xc3", TextMode::utf8),
                       Contains("not valid UTF-8 at byte 1 (" __FILE__ ":"), ValueError);
  CHECK_THROWS_WITH_AS(vocabulary.decode(Tokens{0, 3}),
                       Contains("there is no token 3 in a vocabulary of 3 symbols (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_AS(vocabulary.decode(Tokens{-1}), ValueError);
}

TEST_CASE("windows: streams are contiguous, time-major, the targets one ahead") {
  const Tokens tokens = counting(2 * 7 + 1);  // two streams of 7 steps: windows of 3, 3 and a rest
  const Windows windows(tokens, 2, 3);
  REQUIRE(windows.count() == 2);
  const Window first = windows[0], second = windows[1];
  CHECK(first.inputs.shape() == Shape{3, 2});
  CHECK(first.inputs.dtype() == i32);
  CHECK(first.inputs.to_vector() == std::vector<double>{0, 7, 1, 8, 2, 9});
  CHECK(first.targets.to_vector() == std::vector<double>{1, 8, 2, 9, 3, 10});
  CHECK(second.inputs.to_vector() == std::vector<double>{3, 10, 4, 11, 5, 12});
  CHECK(second.targets.to_vector() == std::vector<double>{4, 11, 5, 12, 6, 13});

  Index i = 0;
  for (const auto& [inputs, targets] : windows) {
    CHECK(inputs.to_vector() == windows[i].inputs.to_vector());
    CHECK(targets.to_vector() == windows[i++].targets.to_vector());
  }
  CHECK(i == 2);
  CHECK_THROWS_WITH_AS(windows[2], Contains("there is no window 2; there are 2 (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_AS(windows[-1], ValueError);
}

TEST_CASE("windows: every stream goes on from window to window, for all sizes") {
  for (const int n : {7, 20, 61, 100})
    for (const Index batch : {1, 2, 3})
      for (const Index seq_len : {1, 2, 5}) {
        const Tokens tokens = counting(n);
        if (n < Windows::least_tokens(batch, seq_len)) continue;
        const Windows windows(tokens, batch, seq_len);
        const Index stream_length = (n - 1) / batch;
        REQUIRE(windows.count() == stream_length / seq_len);
        for (Index i = 0; i < windows.count(); ++i) {
          const Window window = windows[i];
          for (Index t = 0; t < seq_len; ++t)
            for (Index b = 0; b < batch; ++b) {
              const double token = static_cast<double>(b * stream_length + i * seq_len + t);
              REQUIRE(window.inputs.at({t, b}) == token);
              REQUIRE(window.targets.at({t, b}) == token + 1);
            }
        }
      }
}

TEST_CASE("windows: the last one may be kept, with the steps that there are") {
  for (const int n : std::vector<int>{3, 5, 14, 15, 16, 17, 40}) {
    CAPTURE(n);
    const Tokens tokens = counting(n);
    const Windows windows(tokens, 2, 3, LastWindow::keep);
    const Index stream_length = (n - 1) / 2;
    REQUIRE(windows.count() == (stream_length + 2) / 3);
    Index steps = 0;
    for (const Window& window : windows) {
      const Index here = window.inputs.size(0);
      CHECK(here == std::min<Index>(3, stream_length - steps));
      CHECK(window.targets.shape() == window.inputs.shape());
      for (Index t = 0; t < here; ++t)
        for (Index b = 0; b < 2; ++b) {
          const auto at = static_cast<std::size_t>(b * stream_length + steps + t);
          CHECK(window.inputs.at({t, b}) == tokens[at]);
          CHECK(window.targets.at({t, b}) == tokens[at + 1]);
        }
      steps += here;
    }
    CHECK(steps == stream_length);
  }
  const Tokens two = counting(2);
  CHECK_THROWS_WITH_AS(Windows(two, 2, 3, LastWindow::keep), Contains("takes at least 3"),
                       ValueError);
}

TEST_CASE("windows: the shortest text that works is the one the message asks for") {
  CHECK(Windows::least_tokens(4, 5) == 21);
  const Tokens enough = counting(21), tokens = counting(20);
  CHECK(Windows(enough, 4, 5).count() == 1);
  const std::string message = message_of<ValueError>([&] { Windows(tokens, 4, 5); });
  CHECK(contains(message, "20 symbols, but batch 4 x seq_len 5 takes at least 21"));
  CHECK(contains(message, "(" __FILE__ ":"));
  CHECK_THROWS_WITH_AS(
      Windows(tokens, 0, 5),
      Contains("batch is 0 and seq_len is 5; both must be positive (" __FILE__ ":"), ValueError);
  CHECK_THROWS_AS(Windows(tokens, 4, -1), ValueError);
  CHECK_THROWS_AS(Windows(tokens, INT64_MAX, 2), ValueError);
  CHECK_THROWS_AS(Windows(tokens, INT64_MAX, 1), ValueError);
  CHECK_THROWS_AS(Windows(tokens, 1, INT64_MAX - 1), ValueError);
}

TEST_CASE("windows: after the first they allocate no heap memory") {
  const Tokens tokens = counting(5001);
  const Windows windows(tokens, 50, 10);
  { const Window window = windows[0]; }
  const auto before = pool::statistics().heap_allocations;
  for (const auto& window : windows) CHECK(window.inputs.defined());
  CHECK(pool::statistics().heap_allocations == before);
}

TEST_CASE("split: the first part trains, the rest validates") {
  const Tokens tokens = counting(11);
  const auto [train, valid] = split(tokens, 0.9);
  CHECK(Tokens(train.begin(), train.end()) == counting(9));
  CHECK(Tokens(valid.begin(), valid.end()) == Tokens{9, 10});
  CHECK(split(tokens, 1).valid.empty());
  for (const double bad : {0.0, -0.1, 1.1, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_WITH_AS(split(tokens, bad), Contains(", not in (0, 1] (" __FILE__ ":"),
                         ValueError);
}
