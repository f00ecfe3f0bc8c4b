// Files that the readers of data sets refuse, and what they say.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/autograd/rng.h>
#include <reel/datasets/byte_pairs.h>
#include <reel/datasets/conllu.h>
#include <reel/datasets/idx.h>
#include <reel/datasets/piano_roll.h>
#include <reel/datasets/series.h>
#include <reel/datasets/words.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using namespace reel::datasets;

namespace {

using namespace std::string_literals;
using Path = std::filesystem::path;

struct Malformed {
  const char* name;
  std::string content;
  std::string_view says;
};

// A row of a treebank that is right but for its ID and HEAD.
std::string row(std::string_view id, std::string_view head = "0") {
  return fmt::format("{}\tw\t_\tX\t_\t_\t{}\t_\t_\t_\n", id, head);
}

// Checks that each file is refused in one printable line that names it and says this.
template <class Read>
void check_refused(const std::vector<Malformed>& files, Read read) {
  const TemporaryDirectory directory;
  for (const Malformed& file : files) {
    CAPTURE(file.name);
    const Path path = directory.file("file", file.content);
    const std::string message = message_of<FileError>([&] { read(path); });
    CAPTURE(message);
    CHECK(message.starts_with(path.string() + ": "));
    CHECK(contains(message, file.says));
    CHECK(message.size() < 500);
    CHECK_FALSE(contains(message, "\n"));
    CHECK_FALSE(contains(message, "\x1b"));
  }
}

// Reads a right file cut off after each byte, and with random bytes changed: it is read or refused.
template <class Read>
void check_damaged(const std::string& content, Read read) {
  const TemporaryDirectory directory;
  const auto attempt = [&](const std::string& damaged) {
    const std::string message =
        message_of<FileError>([&] { read(directory.file("file", damaged)); });
    CHECK_FALSE(contains(message, "\n"));
  };
  for (std::size_t length = 0; length < content.size(); ++length)
    attempt(content.substr(0, length));
  Rng rng(1);
  const Index trials = testing::rounds(300, 20'000);
  for (Index i = 0; i < trials; ++i) {
    std::string damaged = content;
    for (Index k = 0; k <= rng.integer(3); ++k)
      damaged[static_cast<std::size_t>(rng.integer(content.size()))] =
          rng.uniform() < 0.5 ? static_cast<char>(rng.integer(256))
                              : "\n\t\",-[]{}0918.#e"[rng.integer(16)];
    attempt(damaged);
  }
}

}  // namespace

TEST_CASE("malformed data: treebanks") {
  const std::string ok = row("1");
  check_refused(
      {
          {"empty", "", "the file is empty"},
          {"binary", "1\t\0"s, "a binary file"},
          {"not UTF-8", "1\t\xff\n", "not valid UTF-8"},
          {"only blank lines", "\n\n", "line 1: the end of a sentence without words"},
          {"only a comment", "# a\n", "line 1: the end of a sentence without words"},
          {"comments without words", "# a\n\n" + ok, "line 2: the end of a sentence without words"},
          {"two blank lines", ok + "\n\n" + ok, "line 3: the end of a sentence without words"},
          {"spaces for tabs", "1 w _ X _ _ 0 _ _ _\n", "line 1: 1 column between tabs, not 10"},
          {"nine columns", "1\tw\t_\tX\t_\t_\t0\t_\t_\n", "line 1: 9 columns"},
          {"eleven columns", "1\tw\t_\tX\t_\t_\t0\t_\t_\t_\t_\n", "line 1: 11 columns"},
          {"a blank line with a space", ok + " \n", "line 2: 1 column"},
          {"no form", "1\t\t_\tX\t_\t_\t0\t_\t_\t_\n", "line 1, column 2 (FORM): it is empty"},
          {"no tag", "1\tw\t_\t\t_\t_\t0\t_\t_\t_\n", "line 1, column 4 (UPOS): it is empty"},
          {"begins with 0", row("0"), "column 1 (ID): \"0\" where word 1 has to be"},
          {"begins with 2", row("2"), "\"2\" where word 1 has to be"},
          {"a word twice", ok + row("1"), "line 2, column 1 (ID): \"1\" where word 2 has to be"},
          {"a word left out", ok + row("3"), "\"3\" where word 2 has to be"},
          {"no number", row("x"), "\"x\" where word 1 has to be"},
          {"leading zero", row("01"), "\"01\" where word 1 has to be"},
          {"huge", row("99999999999999999999"), "where word 1 has to be"},
          {"terminal escape", row("\x1b[31m"), "\"\\u001b[31m\" where"},
          {"no head", row("1", "x"), "line 1, column 7 (HEAD): \"x\" is no word"},
          {"negative head", row("1", "-1"), "column 7 (HEAD): \"-1\" is no word"},
          {"its own head", row("1", "1"), "the word depends on itself"},
          {"head too large", row("1", "2"), "line 1: it refers to word 2 of a sentence of 1"},
          {"range backwards", row("2-1") + ok, "\"2-1\" is no range of words from 1 on"},
          {"range of later words", row("2-3") + ok, "is no range of words from 1 on"},
          {"range without end", row("1-") + ok, "is no range of words"},
          {"range beyond", row("1-2") + ok, "line 1: it refers to word 2 of a sentence of 1"},
          {"ranges overlap", row("1-2") + ok + row("2-3") + row("2") + row("3"),
           "line 3, column 1 (ID): \"2-3\" overlaps the multiword token before"},
          {"empty node of another", ok + row("2.1"), "\"2.1\" is no empty node after word 1"},
          {"empty node 0", ok + row("1.0"), "\"1.0\" is no empty node"},
          {"only empty nodes", row("0.1"), "the end of a sentence without words"},
          {"late comment", ok + "# a\n", "line 2: a comment after the first word"},
          {"comment after a token", row("1-2") + "# a\n" + ok, "line 2: a comment after"},
      },
      [](const Path& path) { read_conllu(path); });
}

TEST_CASE("malformed data: images") {
  check_refused(
      {
          {"empty", "", "the file is cut off"},
          {"three bytes", "\0\0\x8"s, "the file is cut off"},
          {"gzip", "\x1f\x8b\x8\0\0\0"s, "a gzip file; decompress it with gunzip"},
          {"text", "images\n", "not an idx file"},
          {"floats", "\0\0\xd\x3"s, "an idx file of type 0x0D, not 0x08 (bytes)"},
          {"labels", "\0\0\x8\x1\0\0\0\x1\x5"s, "an idx file with 1 axes, not 3; images have 3"},
          {"sizes cut off", "\0\0\x8\x3\0\0\0\x1\0\0"s, "the file is cut off"},
          {"no images", "\0\0\x8\x3\0\0\0\0\0\0\0\x1\0\0\0\x1"s, "the size of axis 0 is 0"},
          {"no columns", "\0\0\x8\x3\0\0\0\x1\0\0\0\x1\0\0\0\0"s, "the size of axis 2 is 0"},
          {"data cut off", "\0\0\x8\x3\0\0\0\x1\0\0\0\x2\0\0\0\x2\x1"s,
           "takes 4 bytes of data, but it has 1; it is cut off"},
          {"too long", "\0\0\x8\x3\0\0\0\x1\0\0\0\x1\0\0\0\x1\x1\x2"s,
           "takes 1 bytes of data, but it has 2; it is too long"},
          {"huge", "\0\0\x8\x3\0\x1\0\0\0\0\xff\xff\0\0\xff\xff\x1"s, "it is cut off"},
          {"more than 2^64", "\0\0\x8\x3\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x1"s,
           "takes 2^64 or more bytes of data, but it has 1"},
      },
      [](const Path& path) { read_idx_images(path); });
}

TEST_CASE("malformed data: labels") {
  check_refused(
      {
          {"images", "\0\0\x8\x3\0\0\0\x1\0\0\0\x1\0\0\0\x1\x1"s,
           "an idx file with 3 axes, not 1; labels have 1"},
          {"cut off", "\0\0\x8\x1\0\0\0\x2\x5"s, "takes 2 bytes of data, but it has 1"},
      },
      [](const Path& path) { read_idx_labels(path); });
}

TEST_CASE("malformed data: series") {
  check_refused(
      {
          {"empty", "", "the file is empty"},
          {"only names", "a,b\n", "there are no numbers in it"},
          {"no header", "1,2\n3,4\n", "line 1: numbers where the names of the columns have to be"},
          {"a name twice", "a,b,a\n1,2,3\n", "line 1: two columns have the name \"a\""},
          {"too few", "a,b\n1\n", "line 2: 1 column, but line 1 has 2"},
          {"too many", "a,b\n1,2\n1,2,3\n", "line 3: 3 columns, but line 1 has 2"},
          {"a separator at the end", "a,b\n1,2,\n", "line 2: 3 columns, but line 1 has 2"},
          {"missing", "a,b\n1,2\n,4\n",
           "line 3, column 1 (a): the value is missing; fill it in or leave the line out"},
          {"NA", "a,b\n1,NA\n", "line 2, column 2 (b): the value is missing (\"NA\")"},
          {"nan", "a,b\n1,nan\n", "the value is missing (\"nan\")"},
          {"?", "a,b\n?,1\n", "the value is missing (\"?\")"},
          {"infinite", "a\ninf\n", "\"inf\" is not among the finite numbers of f32"},
          {"too large for f32", "a\n1e39\n", "\"1e39\" is not among the finite numbers of f32"},
          {"too large", "a\n1e999\n", "\"1e999\" is not among"},
          {"a word", "a,b\n1,two\n", "line 2, column 2 (b): \"two\" is not a number"},
          {"a unit", "a\n1kg\n", "\"1kg\" is not a number"},
          {"hexadecimal", "a\n0x10\n", "\"0x10\" is not a number"},
          {"two signs", "a\n+-1\n", "\"+-1\" is not a number"},
          {"a date", "a\n2020-01-01\n", "\"2020-01-01\" is not a number"},
          {"another separator", "a;b\n1;2\n", "column 1 (a;b): \"1;2\" is not a number"},
          {"open quote", "a,\"b\n1,2\n", "line 1, column 2: the closing quote is missing"},
          {"after a quote", "a,\"b\" c\n1,2\n", "column 2: there is something after the closing"},
          {"gap", "a\n1\n\n2\n", "line 4: numbers after line 3, which is blank"},
          {"terminal escape", "a\n\x1b[31m\n", "\"\\u001b[31m\" is not a number"},
          {"long", "a\n" + std::string(100'000, 'x') + "\n", "...\" is not a number"},
          {"long name", std::string(100'000, 'x') + "\n?\n", "line 2, column 1 (xxx"},
      },
      [](const Path& path) { read_series(path); });
  check_refused({{"header", "a,b\n1,2\n", "line 1, column 1: \"a\" is not a number"}},
                [](const Path& path) { read_series(path, {.header = false}); });
  check_refused(
      {{"no such column", "load,date\n1,2\n", "there is no column \"lod\"; did you mean load"}},
      [](const Path& path) { read_series(path, {.columns = {"lod"}}); });
}

TEST_CASE("malformed data: piano rolls") {
  const auto of_train = [](const std::string& train) {
    return R"({"valid": [], "test": [], "train": )" + train + "}";
  };
  check_refused(
      {
          {"empty", "", "the file is empty"},
          {"no JSON", "{'train'", "it is not valid JSON (line 1, column 2)"},
          {"cut off", "{\"train\": [[[60\n", "it is not valid JSON (line 2, column 1)"},
          {"something after", of_train("[]") + "x", "it is not valid JSON"},
          {"a list", "[[[60]]]", "it is a list, not an object of train, valid and test"},
          {"a number", "5", "there is the number 5 in place of a list"},
          {"no test", R"({"train": [], "valid": []})", "it has no \"test\""},
          {"nothing", "{}", "it has no \"train\""},
          {"another key", R"({"training": []})", "the key \"training\" is none of"},
          {"a key twice", R"({"train": [], "train": []})", "the key \"train\" occurs twice"},
          {"a number as part", of_train("5"), "train: there is the number 5 in place of a list"},
          {"an object as part", of_train("{}"), "train: there is an object"},
          {"a number as sequence", of_train("[5]"), "train: there is the number 5"},
          {"a number as step", of_train("[[[60]], [60]]"),
           "train, sequence 1: there is the number 60 in place of a list"},
          {"no steps", of_train("[[[60]], []]"), "train, sequence 1: it has no steps"},
          {"a list as note", of_train("[[[[60]]]]"),
           "train, sequence 0, step 0: there is a list in place of a note"},
          {"too low", of_train("[[[21], [20]]]"),
           "train, sequence 0, step 1: note 20 is not in 21 .. 108"},
          {"too high", of_train("[[[109]]]"), "note 109 is not in 21 .. 108"},
          {"-2", of_train("[[[-2]]]"), "note -2 is not in"},
          {"huge", of_train("[[[18446744073709551615]]]"), "is not in 21 .. 108"},
          {"half a note", of_train("[[[60.5]]]"), "60.5 is not a whole number"},
          {"infinite", of_train("[[[1e999]]]"), "it is not valid JSON"},
          {"null", of_train("[[[null]]]"), "train, sequence 0, step 0: there is a null"},
          {"true", of_train("[[true]]"), "train, sequence 0: there is a truth value"},
          {"a name", of_train("[[[\"C\\u001b4\"]]]"), "there is \"C\\u001b4\""},
          {"very deep", std::string(1'000'000, '['), "it is a list, not an object"},
          {"deep in a part", of_train(std::string(1'000'000, '[')), "there is a list in place of"},
          {"objects", "{\"train\":" + std::string(1'000'000, '{'), "train: there is an object"},
      },
      [](const Path& path) { read_piano_rolls(path); });
}

TEST_CASE("malformed data: more steps of piano rolls than memory is taken for") {
  std::string steps = R"({"train": [[[])";
  for (int i = 0; i < 2'000'000; ++i) steps += ",[]";
  check_refused({{"too many steps", steps + "]]", "it has more than 2000000 steps"}},
                [](const Path& path) { read_piano_rolls(path); });
}

TEST_CASE("malformed data: vocabularies of words") {
  const std::string begin = "words 4\n<unk>\t0\n<eos>\t1\n";
  check_refused(
      {
          {"empty", "", "the file is empty"},
          {"a text", "the cat\n", "line 1: not \"words N\" with N in 2 .. 2147483647"},
          {"no number", "words many\n", "line 1: not \"words N\""},
          {"too few", "words 1\n<unk>\t0\n", "line 1: not \"words N\" with N in 2 .. 2147483647"},
          {"too many", "words 99999999999\n", "line 1: not \"words N\""},
          {"no <unk>", "words 2\nthe\t1\n", "line 2, column 1 (word): \"the\", where <unk> has"},
          {"no <eos>", "words 2\n<unk>\t1\nthe\t1\n", "where <eos> has to be"},
          {"no tab", begin + "the 1\n", "line 4: not a word, a tab and a count"},
          {"two tabs", begin + "the\t1\t2\n", "line 4: not a word, a tab and a count"},
          {"no count", begin + "the\tx\n", "line 4, column 2 (count): \"x\" is no count"},
          {"negative", begin + "the\t-1\n", "\"-1\" is no count"},
          {"never", begin + "the\t0\n", "line 4: \"the\" is no word that occurs"},
          {"no word", begin + "\t1\n", "line 4: \"\" is no word"},
          {"two words", begin + "the cat\t1\n", "\"the cat\" is no word"},
          {"<eos> again", begin + "<eos>\t1\n", "\"<eos>\" is no word"},
          {"a word twice", begin + "a\t1\na\t1\n", "line 5: not in the order of falling counts"},
          {"rising counts", begin + "a\t1\nb\t2\n", "line 5: not in the order"},
          {"equal counts", begin + "b\t1\na\t1\n", "line 5: not in the order"},
          {"cut off", begin + "a\t1\n", "cut off: it has 3 of the 4 words of line 1"},
          {"too long", begin + "a\t1\nb\t1\nc\t1\n", "line 6: more than the 4 words of line 1"},
      },
      [](const Path& path) { WordVocabulary::load(path); });
}

TEST_CASE("malformed data: byte pairs") {
  std::string doubling = "byte_pairs 60\n97 97\n";
  for (int token = 256; token < 315; ++token) doubling += fmt::format("{0} {0}\n", token);
  check_refused(
      {
          {"empty", "", "the file is empty"},
          {"a text", "the cat\n", "line 1: not \"byte_pairs N\""},
          {"too many", "byte_pairs 999745\n", "line 1: not \"byte_pairs N\" with N in 0 .. 999744"},
          {"one token", "byte_pairs 1\n97\n", "line 2: not two tokens with a space between"},
          {"three tokens", "byte_pairs 1\n97 98 99\n", "line 2: not two tokens"},
          {"no token", "byte_pairs 1\n97 x\n", "line 2: \"x\" is no token before 256"},
          {"a later token", "byte_pairs 1\n97 256\n", "line 2: \"256\" is no token before 256"},
          {"a negative one", "byte_pairs 1\n-1 97\n", "\"-1\" is no token"},
          {"a pair twice", "byte_pairs 2\n97 98\n97 98\n", "line 3: the pair occurs twice"},
          {"2^60 bytes", doubling, "line 9: the pair occurs twice, or has more than 128 bytes"},
          {"cut off", "byte_pairs 2\n97 98\n", "cut off: it has 1 of the 2 pairs of line 1"},
          {"too long", "byte_pairs 1\n97 98\n98 97\n", "line 3: more than the 1 pairs of line 1"},
      },
      [](const Path& path) { BytePairs::load(path); });
}

TEST_CASE("malformed data: files cut off anywhere or changed at random are read or refused") {
  check_damaged("# a = b\n" + row("1-2") + row("1", "2") + row("2") + row("2.1") + "\n" + row("1"),
                [](const Path& path) { read_conllu(path); });
  check_damaged("\0\0\x8\x3\0\0\0\x1\0\0\0\x2\0\0\0\x2\x1\x2\x3\x4"s,
                [](const Path& path) { read_idx_images(path); });
  check_damaged("\"a\"\"b\",c\r\n1,-2.5e3\r\n\" 3\" ,4\r\n\r\n",
                [](const Path& path) { read_series(path); });
  check_damaged(R"({"train": [[[60, -1], []]], "valid": [[[21]]], "test": []})",
                [](const Path& path) { read_piano_rolls(path); });
  check_damaged("words 4\n<unk>\t0\n<eos>\t1\nthe\t2\ncat\t1\n",
                [](const Path& path) { WordVocabulary::load(path); });
  check_damaged("byte_pairs 3\n97 98\n256 99\n257 257\n",
                [](const Path& path) { BytePairs::load(path); });
}

TEST_CASE("malformed data: what is no regular file") {
  const TemporaryDirectory directory;
  const auto message = [](auto read) { return message_of<FileError>(read); };
  CHECK(contains(message([&] { read_conllu(directory / "none"); }), "No such file"));
  CHECK(contains(message([&] { read_series(directory.path()); }), "is a directory"));
  CHECK(contains(message([&] { read_idx_images(directory / "none"); }), "No such file"));
}
