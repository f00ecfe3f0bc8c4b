// Files that a user edited, a disk damaged or an attacker made: each refused with the reason. Those
// in the safetensors format are in test_safetensors.cpp.
#include <doctest/doctest.h>

#include <cstdlib>

#include <reel/autograd/error.h>
#include <reel/datasets/text.h>
#include <reel/nn/files/safetensors.h>
#include <reel/optim/run_state.h>

#include "../examples/char_lm/json_lines.h"
#include "../examples/char_lm/metrics.h"
#include "../examples/char_lm/run_config.h"
#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using namespace std::string_literals;
using datasets::TextMode;

namespace {

// `text` with its first `old`, which must be there, replaced.
std::string with(std::string text, std::string_view old, std::string_view by) {
  const std::size_t at = text.find(old);
  REQUIRE(at != std::string::npos);
  return text.replace(at, old.size(), by);
}

std::string repeated(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

void check_message(const std::string& name, const std::string& message, const char* says) {
  CAPTURE(name);
  CAPTURE(message);
  CHECK(contains(message, says));
  CHECK(message.size() < 400);
  CHECK(!contains(message, "\n"));
  CHECK(!contains(message, "\x1b"));
}

}  // namespace

TEST_CASE("malformed files: config.json") {
  char_lm::Settings settings;
  complete(settings, char_lm::all_given);
  const std::string good =
      char_lm::RunConfig{settings, {"/a.txt", 3, 0xabc}, char_lm::vocabulary_of("abc", settings)}
          .json();
  const auto parse = [](const std::string& text) {
    return char_lm::parse_config(text, "/dev/null/vocabulary.txt");
  };
  CHECK(parse(good).json() == good);

  const std::string words = with(with(good, "\"char\"", "\"word\""), "\"abc\"",
                                 "{\"symbols\": 3, \"fnv1a\": \"0000000000000abc\"}");

  struct Case {
    const char* name;
    std::string content;
    const char* says;
  };
  const Case cases[] = {
      // no JSON
      {"empty", "", "not valid JSON (line 1, column 1)"},
      {"spaces", repeated("\n", 1000), "(line 1001, column 1)"},
      {"cut off", good.substr(0, good.size() / 2), "not valid JSON (line 21, column "},
      {"one bracket", "{", "not valid JSON (line 1, column 2)"},
      {"no end", good.substr(0, good.rfind('}')), "not valid JSON"},
      {"more after it", good + "{}", "not valid JSON"},
      {"a comma at the end", with(good, "\n}", ",\n}"), "not valid JSON"},
      {"a comment", "// settings\n" + good, "not valid JSON (line 1, column 1)"},
      {"single quotes", with(good, "\"layers\"", "'layers'"), "(line 3, column 3)"},
      {"a key without quotes", with(good, "\"layers\"", "layers"), "(line 3, column 3)"},
      {"not a number", with(good, "\"lr\": 0.002", "\"lr\": NaN"), "not valid JSON"},
      {"a number without end", with(good, "0.002", "1" + repeated("0", 400)), "not valid JSON"},
      {"not UTF-8", with(good, "/a.txt", "/\xff"), "not valid JSON"},
      {"half a surrogate pair", with(good, "/a.txt", "\\ud800"), "not valid JSON"},
      {"a control character", with(good, "/a.txt", "\x1b[31m"), "not valid JSON"},
      {"another kind of file", "PK\3\4" + good, "not valid JSON (line 1, column 1)"},
      // no object
      {"null", "null", "it is not a JSON object"},
      {"a number", "-3", "it is not a JSON object"},
      {"a string", "\"{}\"", "it is not a JSON object"},
      {"an array", "[" + good + "]", "it is an array, not a JSON object"},
      // keys
      {"nothing", "{}", "it has no \"model\""},
      {"a key left out", with(good, "\"layers\": 2,", ""), "it has no \"layers\""},
      {"a key mistyped", with(good, "\"layers\"", "\"leyers\""),
       "it has no \"layers\", but \"leyers\""},
      {"a key of another case", with(good, "\"lr\"", "\"LR\""), "it has no \"lr\""},
      {"a key twice", with(good, "\"layers\": 2", "\"layers\": 2, \"layers\": 2"),
       "its key \"layers\" occurs twice"},
      {"a key twice, once escaped",
       with(good, "\"layers\": 2", "\"layers\": 2, \"\\u006cayers\": 2"),
       "its key \"layers\" occurs twice"},
      {"a key too many", with(good, "\"layers\"", "\"layer\": 1, \"layers\""),
       "its key \"layer\" is unknown; did you mean layers? There are: "},
      {"an empty key", with(good, "\"layers\"", "\"\": 1, \"layers\""), "its key \"\" is unknown"},
      {"an escape as a key", with(good, "\"layers\"", "\"\\u001b[1m\": 1, \"layers\""),
       "its key \"\\u001b[1m\" is unknown"},
      {"a long key", with(good, "\"layers\"", "\"" + repeated("x", 100'000) + "\": 1, \"layers\""),
       "xxx...\" is unknown"},
      {"a key of the text", with(good, "\"fnv1a\"", "\"fnv2a\""),
       "it has no \"fnv1a\", but \"fnv2a\""},
      {"a text without a path", with(good, "\"path\": \"/a.txt\",", ""), "it has no \"path\""},
      // values
      {"a whole number as text", with(good, "\"layers\": 2", "\"layers\": \"2\""),
       "layers is \"2\", a string, but has to be a whole number from 1 to 10000"},
      {"zero", with(good, "\"layers\": 2", "\"layers\": 0"), "layers is \"0\", but has to be"},
      {"negative", with(good, "\"layers\": 2", "\"layers\": -2"),
       "layers is \"-2\", but has to be"},
      {"too large", with(good, "\"layers\": 2", "\"layers\": 10001"), "layers is \"10001\""},
      {"beyond 64 bits", with(good, "\"seed\": 123", "\"seed\": 18446744073709551616"), "seed is "},
      {"a negative seed", with(good, "\"seed\": 123", "\"seed\": -1"),
       "seed is \"-1\", but has to be"},
      {"a fraction", with(good, "\"hidden\": 128", "\"hidden\": 128.5"), "hidden is \"128.5\""},
      {"a rate of one", with(good, "\"dropout\": 0.0", "\"dropout\": 1.0"),
       "dropout is \"1.0\", but has to be a number from 0 to less than 1"},
      {"a model of none", with(good, "\"lstm\"", "\"LSTM\""), "model is \"LSTM\", but has to be"},
      {"a model of two", with(good, "\"lstm\"", "\"rnn|gru\""), "model is \"rnn|gru\""},
      {"an empty choice", with(good, "\"f32\"", "\"\""), "dtype is \"\", but has to be f32 or f64"},
      {"a truth as a number", with(good, "\"bytes\": false", "\"bytes\": 0"), "bytes is 0, but"},
      {"an object as a number", with(good, "\"layers\": 2", "\"layers\": {}"), "layers is {}, but"},
      {"levels that contradict", with(good, "\"bytes\": false", "\"bytes\": true"),
       "bytes contradicts level char; leave out one of them"},
      {"a level of none", with(good, "\"char\"", "\"line\""),
       "level is \"line\", but has to be char, byte, word or bpe"},
      {"too few words",
       with(with(good, "\"char\"", "\"word\""), "\"vocabulary_size\": 0", "\"vocabulary_size\": 2"),
       "vocabulary-size 2 is too small for level word"},
      {"too few tokens",
       with(with(good, "\"char\"", "\"bpe\""), "\"vocabulary_size\": 0",
            "\"vocabulary_size\": 255"),
       "vocabulary-size 255 is too small for level bpe, which has a token for every byte; give "
       "256"},
      {"a normal form of bytes", with(with(good, "\"none\"", "\"nfc\""), "\"char\"", "\"byte\""),
       "normalize nfc is for characters, and contradicts level byte"},
      {"words as characters", with(good, "\"char\"", "\"word\""),
       "its \"vocabulary\" is not an object"},
      {"words without a hash", with(words, "\"symbols\": 3, ", "\"symbols\": 3, \"h\": 1, "),
       "its key \"h\" is unknown"},
      {"words without a number", with(words, "\"symbols\": 3, ", ""), "it has no \"symbols\""},
      {"a negative number of words", with(words, "\"symbols\": 3", "\"symbols\": -3"),
       "its \"symbols\" is not a size"},
      {"words that stay in their file", with(words, "\"fnv1a\"", "\"fnv1a_of_parts\""),
       "its \"fnv1a_of_parts\" is of a text in its file, which level word"},
      {"two kinds of hash",
       with(good, "\"fnv1a\"", "\"fnv1a_of_parts\": \"0000000000000abc\", \"fnv1a\""),
       "its key \"fnv1a\" is unknown"},
      {"lengths that contradict", with(good, "\"seq_len\": 50", "\"seq_len\": 51"),
       "seq-len 51 contradicts tbptt-update 50"},
      // the text and the vocabulary
      {"a text as a string", with(good, "\"text\": {", "\"text\": \"a\", \"texts\": {"),
       "its \"text\" is not an object"},
      {"a path of none", with(good, "\"/a.txt\"", "null"), "its \"path\" is not a string"},
      {"negative bytes", with(good, "\"bytes\": 3", "\"bytes\": -3"),
       "its \"bytes\" is not a size"},
      {"a hash too short", with(good, "\"0000", "\"000"), "16 hexadecimal digits"},
      {"a hash with a sign", with(good, "\"0000", "\"-000"), "16 hexadecimal digits"},
      {"a hash that is none", with(good, "\"0000", "\"0x00"), "16 hexadecimal digits"},
      {"a text too deep", with(good, "\"/a.txt\"", "{\"a\": {}}"),
       "its \"text\" is nested too deeply"},
      {"no vocabulary", with(good, "\"vocabulary\"", "\"words\""), "it has no \"vocabulary\""},
      {"an empty vocabulary", with(good, "\"abc\"", "\"\""), "a text that is not empty"},
      {"a vocabulary as numbers", with(good, "\"abc\"", "123"),
       "its \"vocabulary\" is not a string"},
      {"a vocabulary of no bytes",
       with(with(good, "\"abc\"", "\"ab\\u20ac\""), "\"level\": \"char\",\n  \"bytes\": false",
            "\"level\": \"byte\",\n  \"bytes\": true"),
       "the symbol 8364 of a vocabulary is not a byte"},
      // what would take time or memory
      {"many keys", "{" + repeated("\"a\":1,", 100'000), "its key \"a\" occurs twice"},
      {"brackets", repeated("[", 1'000'000), "it is an array"},
      {"braces", repeated("{\"a\":", 200'000), "its \"a\" is nested too deeply"},
      {"brackets in a setting", "{\"layers\":" + repeated("[", 1'000'000),
       "its \"layers\" is an array or holds one"},
  };
  for (const Case& c : cases)
    check_message(c.name, message_of<ValueError>([&] { parse(c.content); }), c.says);

  std::string keys = "{";
  for (int i = 0; i < 101; ++i) keys += "\"k" + std::to_string(i) + "\":1,";
  check_message("101 keys", message_of<ValueError>([&] { parse(keys); }), "it has too many keys");
}

TEST_CASE("malformed files: metrics.jsonl, whose other programs' lines count as no time") {
  struct Case {
    const char* name;
    std::string content;
    double elapsed = 0;
  };
  const Case cases[] = {
      {"good", "{\"elapsed_s\":1.5}\n", 1.5},
      {"of other keys as well", "{\"a\":{\"elapsed_s\":9},\"elapsed_s\":1.5,\"b\":[[2]]}\n", 1.5},
      {"empty", "\n"},
      {"no JSON", "elapsed_s 7\n"},
      {"half a line", "{\"elapsed_s\":7\n"},
      {"two values", "{\"elapsed_s\":7} 8\n"},
      {"a NUL", "{\0\"elapsed_s\":7}\n"s},
      {"not UTF-8", "{\"\xff\":1,\"elapsed_s\":7}\n"},
      {"a number alone", "7\n"},
      {"an array", "[{\"elapsed_s\":7}]\n"},
      {"nested", "{\"a\":{\"elapsed_s\":7}}\n"},
      {"text", "{\"elapsed_s\":\"7\"}\n"},
      {"null", "{\"elapsed_s\":null}\n"},
      {"an array as a number", "{\"elapsed_s\":[7]}\n"},
      {"before the beginning", "{\"elapsed_s\":-7}\n"},
      {"31 years", "{\"elapsed_s\":1e9}\n"},
      {"beyond every number", "{\"elapsed_s\":1e999}\n"},
      {"brackets", repeated("[", 1'000'000) + "\n"},
      {"brackets in an object", "{\"a\":" + repeated("[", 1'000'000) + "\n"},
      {"a long line", "{\"a\":\"" + repeated("x", 1 << 24) + "\",\"elapsed_s\":7}\n"},
  };
  const TemporaryDirectory directory;
  for (const Case& c : cases) {
    CAPTURE(c.name);
    const auto path = directory.file("metrics.jsonl", c.content + "a line to cut off");
    CHECK(char_lm::MetricsFile(path, 1).elapsed_s() == c.elapsed);
    CHECK(content_of(path) == c.content);
  }
  const auto path = directory.file("metrics.jsonl", "without an end");
  CHECK(char_lm::MetricsFile(path, 1).elapsed_s() == 0);
  CHECK(content_of(path).empty());
}

TEST_CASE("malformed files: a line of metrics with a hundred thousand keys is refused at once") {
  const TemporaryDirectory directory;
  std::string keys = "{\"a\":0";
  for (int i = 0; i < 100'000; ++i) keys += ",\"" + std::to_string(i) + "\":0";
  const auto path = directory.file("metrics.jsonl", "{}\n" + keys + "}\n");
  std::string message;
  CHECK(testing::cpu_seconds([&] {
          message = message_of<FileError>(
              [&] { char_lm::each_object(path, [](const auto&, std::uint64_t) { return true; }); });
        }) < (testing::sanitized ? 10 : 1));
  CHECK(message ==
        path.string() + ": line 2: it has too many keys; delete the line to do without it");
}

TEST_CASE("malformed files: texts") {
  struct Case {
    const char* name;
    std::string content;
    const char* says;
  };
  const Case cases[] = {
      {"a mark alone", "\xEF\xBB\xBF", "the file is empty; there is no text in it"},
      {"half a mark", "\xEF\xBB", "not valid UTF-8 at byte 0"},
      {"a mark of UTF-16 alone", "\xFF\xFE", "UTF-16 text, not UTF-8; convert it with iconv"},
      {"a NUL alone", "\0"s, "a binary file, not text (a NUL at byte 0); read it as bytes"},
      {"a NUL at the end", "text\n\0"s, "a NUL at byte 5"},
      {"a NUL before what is not UTF-8", "\xff\0"s, "a NUL at byte 1"},
      {"a NUL in a later part", repeated("x", 70'000) + "\0"s, "a NUL at byte 70000"},
      {"broken in a later part", repeated("x", 70'000) + "\xc3", "not valid UTF-8 at byte 70000"},
      {"a symbol cut off at the end of a part", repeated("x", 65'535) + "\xc3(",
       "not valid UTF-8 at byte 65535"},
      {"a program", "\x7f"s + "ELF\2\1\1\0\0"s, "a binary file, not text (a NUL at byte 7)"},
      {"compressed", "\x1f\x8b\x08\x08\xe2\x82", "not valid UTF-8 at byte 1"},
      {"Latin-1", "caf\xe9 na\xefve", "not valid UTF-8 at byte 3; convert it (if it is Latin-1"},
      {"six bytes of one symbol", "\xfc\x84\x80\x80\x80\x80", "not valid UTF-8 at byte 0"},
      {"a NUL in two bytes", "a\xc0\x80", "not valid UTF-8 at byte 1"},
      {"surrogates as symbols", "\xed\xa0\xbd\xed\xb8\x80", "not valid UTF-8 at byte 0"},
      {"four bytes beyond Unicode", "ab\xf7\xbf\xbf\xbf", "not valid UTF-8 at byte 2"},
  };
  const TemporaryDirectory directory;
  for (const Case& c : cases) {
    const auto path = directory.file("a.txt", c.content);
    const std::string message = message_of<FileError>([&] { datasets::read_text(path); });
    CHECK(message.starts_with(path.string() + ": "));
    check_message(c.name, message, c.says);
    CHECK(datasets::read_text(path, TextMode::bytes) == c.content);
  }
}

TEST_CASE("malformed files: the states of runs") {
  const TemporaryDirectory directory;
  const auto path = directory / "run";
  optim::RunState state;
  state.params.tensors["w"] = ones({2});
  state.carried = {ones({1}), ones({2})};
  state.earlier = {state.params, state.params};
  state.numbers["step"] = 1;
  save_run_state(path, state);
  const nn::NamedTensors good = nn::load_safetensors(path);

  const auto refused = [&](const nn::NamedTensors& content) {
    nn::save_safetensors(path, content);
    const std::string message = message_of<FileError>([&] { optim::load_run_state(path); });
    CHECK(message.starts_with(path.string() + ": "));
    return message;
  };
  struct Text {
    const char *name, *key, *value, *says;
  };
  const Text texts[] = {
      {"no checksum", "run.checksum", "", "it is damaged: its content does not have its checksum"},
      {"a version alone", "run.checksum", "2 ", "it is damaged"},
      {"a later version", "run.checksum", "3 0123456789abcdef", "it is damaged"},
      {"an empty generator", "run.rng", "", "its run.rng is not three whole numbers"},
      {"a generator of four", "run.rng", "1 2 3 4", "its run.rng is not three whole numbers"},
      {"a generator with commas", "run.rng", "1,2,3", "its run.rng is not three whole numbers"},
      {"two spaces", "run.rng", "1  2 3", "its run.rng is not three whole numbers"},
      {"a space at the end", "run.rng", "1 2 3 ", "its run.rng is not three whole numbers"},
      {"beyond 64 bits", "run.rng", "18446744073709551616 0 0", "not three whole numbers"},
      {"fractions", "run.rng", "1.5 2 3", "its run.rng is not three whole numbers"},
      {"an empty number", "run.number.step", "", "its run.number.step is not a number"},
      {"a word", "run.number.step", "one", "its run.number.step is not a number"},
      {"two numbers", "run.number.step", "1 2", "its run.number.step is not a number"},
      {"beyond every number", "run.number.step", "1e999", "its run.number.step is not a number"},
      {"an escape", "run.number.\x1b[1m", "x", "its run.number.\\u001b[1m is not a number"},
      {"an unknown text", "run.nonsense", "", "its text \"run.nonsense\" is unknown"},
      {"the prefix alone", "run.", "", "its text \"run.\" is unknown"},
  };
  for (const Text& c : texts) {
    nn::NamedTensors content = good;
    if (c.key != "run.checksum"s) content.metadata.erase("run.checksum");
    content.metadata[c.key] = c.value;
    check_message(c.name, refused(content), c.says);
  }

  struct Renamed {
    const char *name, *from, *to, *says;
  };
  const Renamed renamed[] = {
      {"an unknown tensor", "w", "run.w", "its tensor \"run.w\" is unknown"},
      {"a state that is no number", "run.carried.1", "run.carried.x",
       "its tensors run.carried... are not numbered from 0 on"},
      {"a gap", "run.carried.0", "run.carried.2", "its tensors run.carried... are not numbered"},
      {"a number with a zero", "run.carried.0", "run.carried.00", "are not numbered from 0 on"},
      {"no number", "run.carried.0", "run.carried.", "are not numbered from 0 on"},
      {"an update without a name", "run.earlier.0.w", "run.earlier.0", "are not numbered"},
      {"an update that is negative", "run.earlier.0.w", "run.earlier.-1.w", "are not numbered"},
  };
  for (const Renamed& c : renamed) {
    nn::NamedTensors content = good;
    content.metadata.erase("run.checksum");
    auto node = content.tensors.extract(c.from);
    REQUIRE(!node.empty());
    node.key() = c.to;
    content.tensors.insert(std::move(node));
    check_message(c.name, refused(content), c.says);
  }
}
