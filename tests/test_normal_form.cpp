// Normal forms of Unicode.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/autograd/utf8.h>
#include <reel/datasets/normal_form.h>

#include "testing.h"

using namespace reel;
using namespace reel::datasets;
using namespace reel::testing;
using doctest::Contains;

namespace {

constexpr NormalForm forms[] = {NormalForm::nfc, NormalForm::nfd, NormalForm::nfkc,
                                NormalForm::nfkd};

// Where Reel was built without utf8proc, the function says so and there is nothing to test.
bool is_there() {
  try {
    return normalized("a", NormalForm::nfc) == "a";
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find("libutf8proc-dev") != std::string::npos);
    return false;
  }
}

std::string text_of(const std::vector<char32_t>& symbols) {
  std::string text;
  for (const char32_t symbol : symbols) utf8::append(text, symbol);
  return text;
}

// Letters, marks of several classes, Hangul, ligatures, line ends and any other code points.
std::string random_text(Rng& rng, int length) {
  const std::vector<char32_t> likely{U'a',   U'e',   U'\n',  0x300,   0x301,  0x323,
                                     0x345,  0x1100, 0x1161, 0x11A8,  0xFB01, 0x1E9B,
                                     0xF900, 0x0F71, 0x0F72, 0x1D15E, 0x2126, 0xAC00};
  std::vector<char32_t> symbols;
  for (int i = 0; i < length; ++i) {
    const auto any = static_cast<char32_t>(rng.integer(utf8::last_code_point + 1));
    const bool is_likely = rng.integer(4) > 0 || utf8::is_surrogate(any);
    symbols.push_back(is_likely ? likely[static_cast<std::size_t>(rng.integer(likely.size()))]
                                : any);
  }
  return text_of(symbols);
}

}  // namespace

TEST_CASE("normal forms: known characters") {
  if (!is_there()) return;
  struct Case {
    std::vector<char32_t> text, nfc, nfd, nfkc, nfkd;
  };
  const Case cases[] = {
      {{U'e', 0x301}, {0xE9}, {U'e', 0x301}, {0xE9}, {U'e', 0x301}},
      {{0xFB01}, {0xFB01}, {0xFB01}, {U'f', U'i'}, {U'f', U'i'}},
      // Hangul: a leading consonant, a vowel and a trailing consonant are one syllable.
      {{0x1112, 0x1161, 0x11AB},
       {0xD55C},
       {0x1112, 0x1161, 0x11AB},
       {0xD55C},
       {0x1112, 0x1161, 0x11AB}},
      // Marks are put into the order of their classes: the dot below precedes the dot above.
      {{U's', 0x307, 0x323}, {0x1E69}, {U's', 0x323, 0x307}, {0x1E69}, {U's', 0x323, 0x307}},
      // The Angstrom sign is a letter with a ring.
      {{0x212B}, {0xC5}, {U'A', 0x30A}, {0xC5}, {U'A', 0x30A}},
      // Long s with dot above, and a dot below.
      {{0x1E9B, 0x323}, {0x1E9B, 0x323}, {0x17F, 0x323, 0x307}, {0x1E69}, {U's', 0x323, 0x307}},
      {{U'a', U'\n', 0x301, U'\r', U'\n'},
       {U'a', U'\n', 0x301, U'\r', U'\n'},
       {U'a', U'\n', 0x301, U'\r', U'\n'},
       {U'a', U'\n', 0x301, U'\r', U'\n'},
       {U'a', U'\n', 0x301, U'\r', U'\n'}},
      {{}, {}, {}, {}, {}},
  };
  for (const Case& c : cases) {
    const std::string text = text_of(c.text);
    CHECK(normalized(text, NormalForm::nfc) == text_of(c.nfc));
    CHECK(normalized(text, NormalForm::nfd) == text_of(c.nfd));
    CHECK(normalized(text, NormalForm::nfkc) == text_of(c.nfkc));
    CHECK(normalized(text, NormalForm::nfkd) == text_of(c.nfkd));
  }
}

TEST_CASE("normal forms: once is enough, and equivalent texts become equal") {
  if (!is_there()) return;
  Rng rng(1);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(rng, 1 + i % 40);
    CAPTURE(text);
    for (const NormalForm form : forms) {
      const std::string once = normalized(text, form);
      REQUIRE(normalized(once, form) == once);
      const bool is_compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
      REQUIRE(normalized(normalized(text, NormalForm::nfd), form) == once);
      if (is_compatible) REQUIRE(normalized(normalized(text, NormalForm::nfkd), form) == once);
    }
  }
}

TEST_CASE("normal forms: a long text is the same as its lines") {
  if (!is_there()) return;
  Rng rng(2);
  std::string text, expected;
  while (text.size() < 3'000'000) {
    const std::string line = random_text(rng, 500) + '\n';
    text += line;
    expected += normalized(line, NormalForm::nfkc);
  }
  CHECK(normalized(text, NormalForm::nfkc) == expected);
}

TEST_CASE("normal forms: what is not UTF-8 is refused, with its place") {
  if (!is_there()) return;
  CHECK_THROWS_WITH_AS(normalized("ab\xff", NormalForm::nfc),
                       Contains("normalized: the text is not valid UTF-8 at byte 2"), ValueError);
  CHECK(normalized(std::string("a\0b", 3), NormalForm::nfc) == std::string("a\0b", 3));
}
