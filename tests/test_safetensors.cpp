#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include <reel/autograd/error.h>
#include <reel/nn/files/safetensors.h>

#include "safetensors_file.h"
#include "testing.h"

using namespace reel;
using namespace reel::nn;
using testing::entry;
using testing::file_of;
using testing::one_tensor;
using testing::same_bits;
using testing::saving;

TEST_CASE("safetensors: what is saved is loaded, bit for bit") {
  const TemporaryDirectory directory;
  const auto path = directory / "a.safetensors";
  const double infinity = std::numeric_limits<double>::infinity();
  Rng rng(1);
  NamedTensors content;
  content.tensors = {
      {"scalar", scalar(-0.0, f64)},
      {"vector", tensor({3}, {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()})},
      {"int", tensor({2, 1}, std::vector<std::int32_t>{INT32_MIN, INT32_MAX})},
      {"deep", rng.normal({2, 3, 4, 5})},
      {"deep64", rng.normal({3, 1, 7}, 0, 1, f64)},
      {"empty", Tensor({2, 0, 3}, f32)},
      {"odd \"name\"\n\xc3\xa9 ../../x", ones({1})},
      {std::string(1024, 'n'), zeros({5}, i32)}};
  content.metadata = {{"format", "reel"},
                      {"text", "{\"a\": [1]}\n\t\xe2\x82\xac"},
                      {"", ""},
                      {"nul", std::string("a\0b", 3)}};
  save_safetensors(path, content);

  const NamedTensors loaded = load_safetensors(path);
  CHECK(loaded.metadata == content.metadata);
  REQUIRE(loaded.tensors.size() == content.tensors.size());
  for (const auto& [name, value] : content.tensors) CHECK(same_bits(loaded[name], value));
  CHECK_THROWS_WITH_AS(loaded["none"], doctest::Contains("there is no tensor none; there are: "),
                       ValueError);

  save_safetensors(path, loaded);
  const std::string again = content_of(path);
  save_safetensors(path, content);
  CHECK(content_of(path) == again);
  CHECK(directory.count() == 1);
}

TEST_CASE("safetensors: the bytes of a file, wide numbers first, all aligned") {
  const TemporaryDirectory directory;
  const auto path = directory / "a.safetensors";
  NamedTensors content;
  content.tensors = {{"a", tensor({1}, std::vector<std::int32_t>{7})},
                     {"b", tensor({2}, {1, 2}, f64)}};
  content.metadata = {{"k", "v"}};
  save_safetensors(path, content);
  const std::string file = content_of(path);
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  CHECK(length % 8 == 0);
  CHECK(file.substr(8, length).starts_with(
      R"({"__metadata__":{"k":"v"},)"
      R"("b":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},)"
      R"("a":{"dtype":"I32","shape":[1],"data_offsets":[16,20]}})"));
  CHECK(file.substr(8 + length + 16) == std::string("\7\0\0\0", 4));
  save_safetensors(path, {});
  CHECK(content_of(path) == file_of(8, "{}      "));
  CHECK(load_safetensors(path).tensors.empty());
}

TEST_CASE("safetensors: forms that other writers use") {
  const TemporaryDirectory directory;
  const auto load = [&](const std::string& file) {
    return load_safetensors(directory.file("a", file));
  };
  CHECK(load(file_of(" \r\n\t{ } \t\n", 0)).tensors.empty());
  CHECK(load(one_tensor("F32", "[2, 2]", "[0, 16]"))["w"].shape() == Shape{2, 2});
  CHECK(load(one_tensor("I32", "[4]", "[0,16]"))["w"].at({3}) == 0x01010101);
  CHECK(load(file_of("{" + entry("w", "F32", "[2,0]", "[0,0]") + "}", 0))["w"].size() == 0);
  CHECK(load(file_of("{" + entry("w", "F64", "[]", "[0,8]") + "}", 8))["w"].rank() == 0);
  CHECK(load(file_of(R"({"w":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}})", 4))["w"].size() ==
        1);
  // not in the order of the data, an empty tensor in between
  const NamedTensors three = load(
      file_of("{" + entry("a", "F32", "[1]", "[8,12]") + "," + entry("b", "F32", "[0]", "[8,8]") +
                  "," + entry("c", "F64", "[1]", "[0,8]") + R"(,"__metadata__":{}})",
              12));
  CHECK(three.tensors.size() == 3);
  CHECK(three.metadata.empty());
  CHECK(load(file_of(R"({"\u00e9\n":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", 0))
            .tensors.contains("\xc3\xa9\n"));
}

TEST_CASE("safetensors: malformed files are refused, and say what is wrong") {
  struct Case {
    std::string file;
    const char* message;
  };
  const std::string good = entry("w", "F32", "[4]", "[0,16]");
  std::string many = "{";
  for (int i = 0; i < 10; ++i)
    many += (i ? "," : "") + entry("t" + std::to_string(i), "F32", "[4]", "[0,16]");
  const Case cases[] = {
      // the frame
      {"", "0 bytes are too few for a safetensors file"},
      {"1234567", "7 bytes are too few"},
      {file_of(0, ""), "does not begin with '{'"},
      {file_of(2, ""), "cut off: a header of 2 bytes in a file of 8"},
      {file_of(0xffffff000000003c, "{}"), "a header of 18446742974197923900 bytes is more than"},
      {file_of(UINT64_MAX, "{}"), "is more than the 100000000 allowed"},
      {file_of(100'000'001, "{}"), "is more than the 100000000 allowed"},
      {file_of(100'000'000, "{}"), "cut off: a header of 100000000 bytes in a file of 10"},
      {file_of(3, "{}"), "cut off: a header of 3 bytes in a file of 10"},
      {"PK\3\4 this is a zip file", "is it another kind of file?"},
      {file_of("[]", 0), "does not begin with '{'"},
      {file_of("null", 0), "does not begin with '{'"},
      {file_of("\"{}\"", 0), "does not begin with '{'"},
      {file_of("    ", 0), "does not begin with '{'"},
      {file_of("\xef\xbb\xbf{}", 0), "does not begin with '{'"},
      // the JSON
      {file_of("\xff", 0), "does not begin with '{'"},
      {file_of("{", 0), "not valid JSON in UTF-8 (at byte 2 of it)"},
      {file_of("{\"\xff\":0}", 0), "not valid JSON in UTF-8 (at byte 3 of it)"},
      {file_of("{\"\xed\xa0\x80\":0}", 0), "not valid JSON in UTF-8"},
      {file_of(R"({"\ud800":0})", 0), "not valid JSON in UTF-8"},
      {file_of("{} {}", 0), "not valid JSON in UTF-8"},
      {file_of("{},", 0), "not valid JSON in UTF-8"},
      {file_of("{/**/}", 0), "not valid JSON in UTF-8"},
      {file_of("{" + good + ",}", 16), "not valid JSON in UTF-8"},
      {file_of(std::string("{}\0", 3), 0), "its header holds a NUL (at byte 2 of it)"},
      {file_of(std::string("{}\0{}", 5), 0), "its header holds a NUL"},
      {file_of("{\"a\nb\":0}", 0), "not valid JSON in UTF-8"},
      {file_of("{\"a\":" + std::string(1'000'000, '[') + "}", 0),
       "\"a\" is an array, not an object"},
      {file_of("{\"w\":{\"shape\":" + std::string(1'000'000, '['), 0),
       "shape is or holds an array"},
      {file_of("{\"w\":{\"dtype\":" + std::string(1'000'000, '{'), 0),
       "dtype is or holds an object"},
      // the kinds of values
      {file_of(R"({"w":3})", 0), "the value of \"w\" is a number, not an object"},
      {file_of(R"({"w":null})", 0), "the value of \"w\" is null"},
      {file_of(R"({"w":"x"})", 0), "the value of \"w\" is a string"},
      {file_of(R"({"w":true})", 0), "the value of \"w\" is a boolean"},
      {file_of(R"({"w":{}})", 0), "tensor \"w\": dtype, shape or data_offsets is missing"},
      {file_of(R"({"w":{"dtype":"F32","shape":[0]}})", 0), "data_offsets is missing"},
      {file_of(R"({"w":{"dtype":3}})", 0), "tensor \"w\": dtype is or holds a number"},
      {file_of(R"({"w":{"dtype":["F32"]}})", 0), "dtype is or holds an array"},
      {file_of(R"({"w":{"shape":4}})", 0), "shape is or holds a number"},
      {file_of(R"({"w":{"shape":"[4]"}})", 0), "shape is or holds a string"},
      {file_of(R"({"w":{"strides":[4]}})", 0), "tensor \"w\": the key \"strides\" is unknown"},
      {file_of(R"({"w":{"":0}})", 0), "the key \"\" is unknown"},
      {one_tensor("F32", "[\"4\"]", "[0,16]"), "shape is or holds a string"},
      {one_tensor("F32", "[null]", "[0,16]"), "shape is or holds null"},
      {one_tensor("F32", "[-4]", "[0,16]"), "shape is or holds a negative number"},
      {one_tensor("F32", "[4.0]", "[0,16]"),
       "shape is or holds a number that is not a 64-bit integer"},
      {one_tensor("F32", "[4e0]", "[0,16]"), "shape is or holds a number that is not"},
      {one_tensor("F32", "[18446744073709551616]", "[0,16]"),
       "shape is or holds a number that is not"},
      {one_tensor("F32", "[4]", "[-0,16]"), "data_offsets is or holds a negative number"},
      {one_tensor("F32", "[4]", "[-16,0]"), "data_offsets is or holds a negative number"},
      {one_tensor("F32", "[4]", "[0.0,16]"), "data_offsets is or holds a number that is not"},
      {one_tensor("F32", "[4]", "[0,1.6e1]"), "data_offsets is or holds a number that is not"},
      {one_tensor("F32", "[4]", "[0]"), "data_offsets is not a pair of numbers"},
      {one_tensor("F32", "[4]", "[]"), "data_offsets is not a pair of numbers"},
      {one_tensor("F32", "[4]", "[0,16,16]"), "data_offsets is not a pair of numbers"},
      {one_tensor("F32", "[4]", "[[0,16]]"), "data_offsets is or holds an array"},
      {one_tensor("F32", "[4]", "{\"0\":16}"), "data_offsets is or holds an object"},
      // dtypes and names
      {one_tensor("BF16", "[4]", "[0,16]"), "span 16 bytes, but BF16 of shape [4] takes 8"},
      {one_tensor("I64", "[4]", "[0,16]"), "span 16 bytes, but I64 of shape [4] takes 32"},
      {one_tensor("U8", "[4,3]", "[0,16]"), "span 16 bytes, but U8 of shape [4, 3] takes 12"},
      {one_tensor("F32", "[1,1,1,2,3]", "[0,16]"), "of shape [1, 1, 1, 2, ...] takes 24"},
      {one_tensor("F8_E5M2", "[18446744073709551615]", "[0,16]"), "is too large"},
      {file_of("{" + entry("", "F32", "[4]", "[0,16]") + "}", 16),
       "tensor \"\": its name is empty"},
      {file_of("{" + entry("a\\u0000b", "F32", "[4]", "[0,16]") + "}", 16),
       "tensor \"a\\u0000b\": its name holds a NUL"},
      {file_of("{" + entry(std::string(1025, 'n'), "F32", "[4]", "[0,16]") + "}", 16),
       "nnn...\": its name is longer than 1024 bytes"},
      // duplicates
      {file_of("{" + good + "," + good + "}", 16), "tensor \"w\": the name occurs twice"},
      {file_of("{" + good + "," + entry("\\u0077", "F32", "[0]", "[16,16]") + "}", 16),
       "tensor \"w\": the name occurs twice"},
      {file_of(R"({"w":{"dtype":"F32","dtype":"F64"}})", 0),
       "tensor \"w\": the key dtype occurs twice"},
      {file_of(R"({"w":{"shape":[4],"shape":[4]}})", 0), "the key shape occurs twice"},
      {file_of(R"({"w":{"data_offsets":[],"data_offsets":[]}})", 0),
       "the key data_offsets occurs twice"},
      {file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), "the key __metadata__ occurs twice"},
      {file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0),
       "key \"a\" of __metadata__ occurs twice"},
      // metadata
      {file_of(R"({"__metadata__":"x"})", 0),
       "the value of \"__metadata__\" is a string, not an object"},
      {file_of(R"({"__metadata__":null,"__metadata__":{}})", 0), "__metadata__ occurs twice"},
      {file_of(R"({"__metadata__":[]})", 0), "the value of \"__metadata__\" is an array"},
      {file_of(R"({"__metadata__":{"a":1}})", 0),
       "__metadata__: the value of \"a\" is a number, not a string"},
      {file_of(R"({"__metadata__":{"a":-1.5}})", 0),
       "__metadata__: the value of \"a\" is a number"},
      {file_of(R"({"__metadata__":{"a":null}})", 0), "__metadata__: the value of \"a\" is null"},
      {file_of(R"({"__metadata__":{"a":{}}})", 0), "__metadata__: the value of \"a\" is an object"},
      {file_of(R"({"__metadata__":{"a":["b"]}})", 0),
       "__metadata__: the value of \"a\" is an array"},
      // terminal escapes
      {file_of("{\"\\u001b[31m\\u009b\":3}", 0), "the value of \"\\u001b[31m\\u009b\" is a number"},
      {file_of("{\"\xc2\x9b\xe2\x80\xae\":3}", 0), "the value of \"\\u009b\\u202e\" is a number"},
      // the layout
      {one_tensor("F32", "[4]", "[0,4]"),
       "data_offsets [0, 4] span 4 bytes, but F32 of shape [4] takes 16"},
      {one_tensor("F64", "[4]", "[0,16]"), "span 16 bytes, but F64 of shape [4] takes 32"},
      {one_tensor("F32", "[4]", "[16,0]"), "tensor \"w\": its data_offsets [16, 0] run backwards"},
      {one_tensor("F32", "[4]", "[18446744073709551615,15]"), "run backwards"},
      {one_tensor("F32", "[2,18446744073709551614]", "[0,16]"),
       "shape [2, 18446744073709551614] is too large"},
      {one_tensor("I32", "[2,9223372036854775807]", "[0,16]"), "is too large"},
      {one_tensor("F32", "[4611686018427387904,4]", "[0,0]"), "is too large"},
      {one_tensor("F32", "[0,9223372036854775807,9223372036854775807]", "[0,0]"), "is too large"},
      {one_tensor("F32", "[0,18446744073709551615]", "[0,0]"), "is too large"},
      {one_tensor("F32", "[2305843009213693951]", "[0,9223372036854775804]"),
       "cut off: 9223372036854775788 bytes are missing at the end"},
      {file_of("{" + good + "}", 17), "1 bytes follow the last tensor"},
      {file_of("{" + good + "}", 14), "cut off: 2 bytes are missing at the end"},
      {file_of("{}", 4), "4 bytes follow the last tensor"},
      {one_tensor("F32", "[3]", "[4,16]"), "data begins at byte 4 where 0 was expected (a hole)"},
      {file_of(
           "{" + entry("a", "F32", "[1]", "[0,4]") + "," + entry("b", "F32", "[1]", "[8,12]") + "}",
           12),
       "tensor \"b\": its data begins at byte 8 where 4 was expected (a hole)"},
      {file_of(
           "{" + entry("a", "F32", "[2]", "[0,8]") + "," + entry("b", "F32", "[2]", "[4,12]") + "}",
           12),
       "tensor \"b\": its data begins at byte 4 where 8 was expected (an overlap)"},
      {file_of(
           "{" + entry("a", "F32", "[2]", "[0,8]") + "," + entry("b", "F32", "[0]", "[4,4]") + "}",
           8),
       "tensor \"b\": its data begins at byte 4 where 8 was expected (an overlap)"},
      {file_of(many + "}", 16), "where 16 was expected (an overlap)"},
  };
  const TemporaryDirectory directory;
  for (const Case& c : cases) {
    const auto path = directory.file("bad.safetensors", c.file);
    const std::string message = message_of<FileError>([&] { load_safetensors(path); });
    CAPTURE(c.message);
    CAPTURE(message);
    CHECK(message.starts_with(path.string() + ": "));
    CHECK(contains(message, c.message));
    CHECK(message.size() < path.string().size() + 300);
    CHECK(!contains(message, "\n"));
  }
}

TEST_CASE("safetensors: no metadata may be null") {
  const TemporaryDirectory directory;
  const auto path = directory.file(
      "a", file_of("{\"__metadata__\":null," + entry("w", "F32", "[4]", "[0,16]") + "}", 16));
  const NamedTensors content = load_safetensors(path);
  CHECK(content.metadata.empty());
  CHECK(content["w"].size() == 4);
}

TEST_CASE("safetensors: a header with too many tensors or texts is refused early") {
  const TemporaryDirectory directory;
  const auto refused = [&](const std::string& header, std::size_t data) {
    const std::string message = message_of<FileError>(
        [&] { load_safetensors(directory.file("many", file_of(header, data))); });
    CHECK(contains(message, "its header has more than 250000 tensors and texts"));
  };
  std::string texts = "{\"__metadata__\":{", tensors = "{";
  NamedTensors content;
  for (int i = 0; i <= 250'000; ++i) {
    const std::string comma = i ? "," : "", name = std::to_string(i);
    texts.append(comma).append("\"").append(name).append("\":\"\"");
    tensors.append(comma + entry(name, "F32", "[0]", "[0,0]"));
    content.metadata.emplace_hint(content.metadata.end(), name, "");
  }
  if (!testing::sanitized) refused(texts + "}}", 0);
  refused(tensors + "}", 0);
  CHECK(contains(saving(directory / "b", content), "250001 tensors and texts; 250000 are allowed"));
}

TEST_CASE("safetensors: a file cut off anywhere is refused, a damaged one never does harm") {
  const TemporaryDirectory directory;
  NamedTensors content;
  content.tensors = {{"a", ones({3})}, {"b", tensor({2}, {1, 2}, f64)}};
  content.metadata = {{"key", "value"}};
  save_safetensors(directory / "good", content);
  const std::string good = content_of(directory / "good");
  for (std::size_t size = 0; size < good.size(); ++size) {
    const auto path = directory.file("bad", std::string_view(good).substr(0, size));
    CHECK_THROWS_AS(load_safetensors(path), FileError);
  }
  Rng rng(1);
  for (Index i = 0; i < testing::rounds(300, 100'000); ++i) {
    std::string bad = good;
    for (Index n = rng.integer(3); n >= 0; --n)
      bad[static_cast<std::size_t>(rng.integer(static_cast<Index>(bad.size())))] =
          static_cast<char>(rng.integer(256));
    try {
      load_safetensors(directory.file("bad", bad));
    } catch (const FileError&) {  // any other exception fails the test
    }
  }
}

TEST_CASE("safetensors: a huge header of overlapping tensors is refused fast") {
  const TemporaryDirectory directory;
  std::string header = "{";
  for (int i = 0; i < 50'000; ++i)
    header += (i ? ",\"" : "\"") + std::to_string(i) +
              R"(":{"dtype":"F32","shape":[4],"data_offsets":[0,16]})";
  const auto path = directory.file("attack", file_of(header + "}", 16));
  std::string message;
  CHECK(testing::cpu_seconds(
            [&] { message = message_of<FileError>([&] { load_safetensors(path); }); }) < 10);
  CHECK(contains(message, "an overlap"));
}

TEST_CASE("safetensors: files that cannot be opened") {
  const TemporaryDirectory directory;
  const auto message = [](const std::filesystem::path& path) {
    return message_of<FileError>([&] { load_safetensors(path); });
  };
  CHECK(message(directory / "none") ==
        (directory / "none").string() + ": cannot read: No such file or directory");
  CHECK(contains(message(directory.path()), "cannot read: it is a directory, not a regular file"));
}

TEST_CASE(
    "safetensors: content that the format does not allow is refused before a file is touched") {
  const TemporaryDirectory directory;
  const auto path = directory.file("model", "old");
  const auto named = [](const std::string& name) {
    NamedTensors content;
    content.tensors = {{name, ones({1})}};
    return content;
  };
  CHECK(contains(saving(path, named("")), "save_safetensors: tensor \"\": its name is empty"));
  CHECK(
      contains(saving(path, named(std::string("a\0b", 3))), "\"a\\u0000b\": its name holds a NUL"));
  CHECK(contains(saving(path, named(std::string(1025, 'x'))), "is longer than 1024 bytes"));
  CHECK(contains(saving(path, named("__metadata__")), "the format uses this name itself"));
  CHECK(contains(saving(path, named("a\xff")), "is not valid UTF-8"));
  NamedTensors content;
  content.tensors = {{"w", Tensor()}};
  CHECK(contains(saving(path, content), "tensor \"w\": it is undefined"));
  content.tensors.clear();
  content.metadata = {{"key", "\xc0"}};
  CHECK(contains(saving(path, content), "is not valid UTF-8"));
  content.metadata["key"].resize(100'000'000, 'x');
  CHECK(contains(saving(path, content),
                 "names and metadata take 100000003 bytes; 100000000 are allowed"));
  CHECK(content_of(path) == "old");
  CHECK(directory.count() == 1);
}

TEST_CASE("safetensors: a failed save does no harm") {
  const TemporaryDirectory directory;
  NamedTensors content;
  content.tensors = {{"w", ones({1})}};
  CHECK_THROWS_AS(save_safetensors(directory / "none/model", content), FileError);
  std::filesystem::create_directory(directory / "taken");
  CHECK_THROWS_AS(save_safetensors(directory / "taken", content), FileError);
  CHECK(std::filesystem::is_directory(directory / "taken"));
  CHECK(directory.count() == 1);
}
