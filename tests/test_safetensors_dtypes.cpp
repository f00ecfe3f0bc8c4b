// Safetensors files of element types that Reel converts, or cannot represent.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include "safetensors_file.h"
#include "testing.h"

using namespace reel;
using namespace reel::nn;
using testing::entry;
using testing::file_of;
using testing::saving;

namespace {

// A file of tensors of one format each, and their bytes.
std::string file_of_tensors(
    std::initializer_list<std::tuple<const char*, const char*, std::string>> items) {
  std::string header = "{", data;
  for (const auto& [name, dtype_and_shape, bytes] : items) {
    const std::string text = dtype_and_shape;
    const std::size_t space = text.find(' ');
    header +=
        (data.empty() ? "" : ",") + entry(name, text.substr(0, space), text.substr(space + 1),
                                          "[" + std::to_string(data.size()) + "," +
                                              std::to_string(data.size() + bytes.size()) + "]");
    data += bytes;
  }
  header += "}";
  return file_of(header.size(), header + data);
}

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.begin(), bytes.size());
  return bytes;
}

}  // namespace

TEST_CASE("safetensors: other formats are converted if this is lossless") {
  const TemporaryDirectory directory;
  using Halves = std::initializer_list<std::uint16_t>;
  const NamedTensors content = load_safetensors(directory.file(
      "a", file_of_tensors({{"f32", "F32 [1]", bytes_of({1.5f})},
                            {"f16", "F16 [3,3]",
                             bytes_of(Halves{0x3C00, 0xC000, 0x7BFF, 0x0400, 0x0001, 0x83FF, 0x8000,
                                             0x7C00, 0xFE01})},
                            {"bf16", "BF16 [4]", bytes_of(Halves{0x3F80, 0xC049, 0x0001, 0xFF80})},
                            {"i64", "I64 [2]", bytes_of<std::int64_t>({INT32_MIN, INT32_MAX})},
                            {"u64", "U64 []", bytes_of<std::uint64_t>({7})},
                            {"u32", "U32 [1]", bytes_of<std::uint32_t>({INT32_MAX})},
                            {"i16", "I16 [2]", bytes_of<std::int16_t>({INT16_MIN, 5})},
                            {"u16", "U16 [1]", bytes_of<std::uint16_t>({UINT16_MAX})},
                            {"i8", "I8 [2]", bytes_of<std::int8_t>({-128, 127})},
                            {"u8", "U8 [2]", bytes_of<std::uint8_t>({0, 255})},
                            {"bool", "BOOL [2,2]", std::string("\0\1\1\0", 4)},
                            {"none", "F16 [0]", ""}})));
  CHECK(content.unread.empty());
  using Values = std::vector<double>;
  const auto check = [&](const char* name, DType dtype, const Values& values) {
    CAPTURE(name);
    CHECK(content[name].dtype() == dtype);
    CHECK(content[name].to_vector() == values);
  };
  const Values halves = content["f16"].to_vector();
  CHECK(content["f16"].dtype() == f32);
  CHECK(content["f16"].shape() == Shape{3, 3});
  CHECK(Values(halves.begin(), halves.begin() + 8) ==
        Values{1, -2, 65504, 0x1p-14, 0x1p-24, -1023 * 0x1p-24, -0.0,
               std::numeric_limits<double>::infinity()});
  CHECK(std::signbit(halves[6]));
  CHECK(std::isnan(halves[8]));
  check("f32", f32, {1.5});
  check("bf16", f32, {1, -3.140625, 0x1p-133, -std::numeric_limits<double>::infinity()});
  check("i64", i32, {INT32_MIN, INT32_MAX});
  check("u64", i32, {7});
  check("u32", i32, {INT32_MAX});
  check("i16", i32, {INT16_MIN, 5});
  check("u16", i32, {UINT16_MAX});
  check("i8", i32, {-128, 127});
  check("u8", i32, {0, 255});
  check("bool", i32, {0, 1, 1, 0});
  check("none", f32, {});
}

TEST_CASE("safetensors: a tensor that Reel cannot represent is an error only when it is accessed") {
  const TemporaryDirectory directory;
  const auto path = directory.file(
      "a", file_of_tensors({{"w", "F32 [2]", bytes_of({1.0f, 2.0f})},
                            {"long", "I64 [2]", bytes_of<std::int64_t>({1, 5'000'000'000})},
                            {"eight", "F8_E4M3 [4]", "1234"},
                            {"new", "F4\\u001b [9]", "56789"},
                            {"deep", "F32 [1,1,1,1,1,2]", bytes_of({1.0f, 2.0f})},
                            {"last", "I32 [1]", bytes_of({3})}}));
  NamedTensors content = load_safetensors(path);
  CHECK(content.tensors.size() == 2);
  CHECK(content["w"].to_vector() == std::vector<double>{1, 2});
  CHECK(content["last"].item() == 3);
  const auto message = [&](const char* name) {
    return testing::message_without_line<ValueError>([&] { content[name]; });
  };
  CHECK(message("long") ==
        "tensor long: its element 1 is 5000000000, which is out of range for i32");
  CHECK(message("eight") == "tensor eight: its dtype is F8_E4M3, which Reel does not support");
  CHECK(message("new") == "tensor new: its dtype is \"F4\\u001b\", which is unknown");
  CHECK(message("deep") == "tensor deep: its shape has more than 4 axes");
  CHECK(content.part("lo").unread.contains("ng"));
  CHECK(contains(saving(directory / "b", content), "\"deep\" was not read"));

  Params params;
  const auto create = [&](const char* name) {
    params.create(name, {2},
                  [](Rng&, const Shape& shape, DType dtype) { return zeros(shape, dtype); });
  };
  create("w");
  content.tensors.erase("last");
  CHECK(contains(message_of<ValueError>([&] { load_params(content, params); }),
                 "the tensors deep, eight, long and 1 more belong to no parameter"));
  create("long");
  CHECK(contains(message_of<ValueError>([&] { load_params(content, params); }),
                 "load_params: the tensor long: its element 1 is 5000000000, which is out of range "
                 "for i32 ("));
  content.unread.clear();
  CHECK(contains(message_of<ValueError>([&] { load_params(content, params); }), "long are not"));
}
