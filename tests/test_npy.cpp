// NumPy's files: what is written is read, and by whom else; what is malformed.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using testing::same_bits;

namespace {

std::string npy(const std::string& dict, const std::string& data, char version = '\1') {
  std::string header = dict + "\n";
  std::string file = std::string("\x93NUMPY") + version + '\0';
  file += static_cast<char>(header.size() & 0xFF);
  file += static_cast<char>(header.size() >> 8);
  if (version > 1) file += std::string(2, '\0');
  return file + header + data;
}

std::string dict_of(const std::string& type, const std::string& shape,
                    const std::string& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

template <class T>
std::string bytes(std::initializer_list<T> numbers, bool swap = false) {
  std::string result;
  for (const T number : numbers) {
    std::string one(sizeof number, '\0');
    std::memcpy(one.data(), &number, sizeof number);
    if (swap) std::reverse(one.begin(), one.end());
    result += one;
  }
  return result;
}

}  // namespace

TEST_CASE("npy: arrays of every rank and dtype are written and read with the same bits") {
  const TemporaryDirectory directory;
  Rng rng(1);
  for (const DType dtype : {f32, f64, i32})
    for (const Shape& shape :
         {Shape{}, Shape{3}, Shape{0}, Shape{2, 3}, Shape{2, 0, 4}, Shape{2, 1, 3, 2}}) {
      const Tensor x =
          dtype == i32 ? floor(rng.uniform(shape, -9, 9)).to(i32) : rng.normal(shape, 0, 1, dtype);
      nn::save_npy(directory / "x.npy", x);
      const Tensor y = nn::load_npy(directory / "x.npy");
      CHECK(y.dtype() == dtype);
      CHECK(same_bits(x, y));
    }
}

TEST_CASE("npy: byte orders, orders of axes, versions and types of NumPy") {
  const TemporaryDirectory directory;
  const auto read = [&](const std::string& content) {
    return nn::load_npy(directory.file("x.npy", content));
  };
  using Numbers = std::vector<double>;
  CHECK(read(npy(dict_of(">f4", "(2,)"), bytes<float>({1.5f, -2}, true))).to_vector() ==
        Numbers{1.5, -2});
  const Tensor fortran =
      read(npy(dict_of("<f8", "(2, 3)", "True"), bytes<double>({1, 2, 3, 4, 5, 6})));
  CHECK(fortran.shape() == Shape{2, 3});
  CHECK(fortran.to_vector() == Numbers{1, 3, 5, 2, 4, 6});
  CHECK(read(npy(dict_of("|b1", "(2,)"), std::string("\1\0", 2))).to_vector() == Numbers{1, 0});
  CHECK(read(npy(dict_of("<i8", "()"), bytes<std::int64_t>({-7}))).item() == -7);
  CHECK(read(npy(dict_of("<u2", "(1,)"), bytes<std::uint16_t>({65535}))).item() == 65535);
  CHECK(read(npy(dict_of("<f2", "(2,)"), bytes<std::uint16_t>({0x3C00, 0xFC00}))).to_vector() ==
        Numbers{1, -std::numeric_limits<double>::infinity()});
  CHECK(read(npy(dict_of("<i4", "(1,)"), bytes<std::int32_t>({5}), '\2')).item() == 5);
  CHECK(read(npy("{ \"shape\" : (1 , ) ,\"descr\":\"<i4\", 'fortran_order' :False}",
                 bytes<std::int32_t>({5})))
            .item() == 5);
}

TEST_CASE("npy: malformed files are refused with the reason") {
  const TemporaryDirectory directory;
  const auto refusal = [&](const std::string& content) {
    const auto path = directory.file("x.npy", content);
    const std::string message =
        testing::message_without_line<FileError>([&] { nn::load_npy(path); });
    CHECK(message.starts_with(path.string() + ": "));
    return message.substr(std::min(message.size(), path.string().size() + 2));
  };
  const std::string f4 = bytes<float>({1, 2});
  CHECK(refusal("") == "it is not a .npy file, which begins with \\x93NUMPY");
  CHECK(refusal("PK\3\4 and more bytes") == "it is not a .npy file, which begins with \\x93NUMPY");
  CHECK(refusal(npy(dict_of("<f4", "(2,)"), f4, '\7')) == "its version 7 is unknown");
  CHECK(refusal(npy(dict_of("<f4", "(2,)"), f4).substr(0, 30)) ==
        "it is cut off within its header");
  CHECK(refusal(npy(std::string(11'000, ' '), "")) ==
        "a header of 11001 bytes is more than the 10000 allowed");
  CHECK(refusal(npy(dict_of("<f4", "(3,)"), f4)) == "f4 of shape [3] take 12 bytes, but 8 follow");
  CHECK(refusal(npy(dict_of("<f4", "(4611686018427387904, 4611686018427387904)"), f4)) ==
        "its shape is too large");
  CHECK(refusal(npy(dict_of("<f4", "(1, 1, 1, 1, 2)"), f4)) ==
        "it has 5 axes, and tensors at most 4");
  CHECK(refusal(npy(dict_of("<c8", "(1,)"), f4)) ==
        "its numbers are \"c8\", which Reel does not read");
  CHECK(refusal(npy(dict_of("|O", "(1,)"), f4)) ==
        "its numbers are \"O\", which Reel does not read");
  CHECK(refusal(npy(dict_of("<i8", "(1,)"), bytes<std::int64_t>({1LL << 40}))) ==
        "its number 1099511627776 is out of range for i32");
  for (const std::string& dict :
       {std::string("{}"), dict_of("<f4", "(2"), dict_of("<f4", "(-2,)"),
        dict_of("<f4", "(2,)") + "x",
        std::string("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"),
        dict_of("<f4", "(99999999999999999999,)"), dict_of("<f4", "(2,)", "Maybe")})
    CHECK(refusal(npy(dict, f4))
              .starts_with("its header is not a dict of descr, fortran_order and shape: "));
}

TEST_CASE("npz: arrays by name, with what cannot be read listed") {
  const TemporaryDirectory directory;
  const auto path = directory / "x.npz";
  nn::NamedTensors content;
  content.tensors = {{"rnn/gru_cell/kernel", ones({2, 3})},
                     {"b", full({2}, 0.5, f64)},
                     {"\xC3\xA9", scalar(7, i32)}};
  nn::save_npz(path, content);
  const nn::NamedTensors read = nn::load_npz(path);
  CHECK(read.tensors.size() == 3);
  for (const auto& [name, x] : content.tensors) CHECK(same_bits(read[name], x));

  const auto refusal = [&](const std::string& text) {
    const auto where = directory.file("bad.npz", text);
    return testing::message_without_line<FileError>([&] { nn::load_npz(where); });
  };
  CHECK(refusal("").find(": it is no .npz file: ") != std::string::npos);
  std::string damaged = [&] {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  CHECK(refusal(damaged.substr(0, damaged.size() / 2)).find(": it is no .npz file: ") !=
        std::string::npos);
  damaged[damaged.find("NUMPY") + 130] ^= 1;  // a number
  CHECK(refusal(damaged).find("does not have its size or checksum") != std::string::npos);
  CHECK(testing::message_without_line<ValueError>([&] {
          nn::NamedTensors bad;
          bad.tensors = {{"/root", ones({1})}};
          nn::save_npz(path, bad);
        }) == "save_npz: \"/root\" cannot be the name of an array");
  CHECK(nn::load_npz(path).tensors.size() == 3);  // the old file is intact
}
