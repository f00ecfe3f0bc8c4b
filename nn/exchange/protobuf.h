#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// As much of protocol buffers as ONNX needs (https://protobuf.dev/programming-guides/encoding/):
/// a message is a sequence of fields, each a number with its value.
namespace reel::nn::protobuf {

class Writer {
 public:
  void integer(unsigned field, std::int64_t value) {
    varint(field << 3);
    varint(static_cast<std::uint64_t>(value));
  }
  void text(unsigned field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  void message(unsigned field, const Writer& value) { text(field, value.bytes_); }
  void real(unsigned field, float value) {
    varint(field << 3 | 5);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  std::string take() { return std::move(bytes_); }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

/// Thrown by Fields.
struct Malformed {};

/// The fields of a message one after another: while (fields.next()) ... fields.field ...
/// Throws Malformed.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    field = static_cast<unsigned>(tag >> 3);
    number = 0;
    text = {};
    switch (tag & 7) {
      case 0:
        number = static_cast<std::int64_t>(varint());
        break;
      case 1:
        text = take(8);
        break;
      case 2:
        text = take(varint());
        break;
      case 5:
        text = take(4);
        break;
      default:
        fail();
    }
    return true;
  }
  /// A repeated number, which is packed or alone.
  void append(std::vector<std::int64_t>& to) const {
    if (text.data() == nullptr) return to.push_back(number);
    for (Fields packed(text); !packed.rest_.empty();)
      to.push_back(static_cast<std::int64_t>(packed.varint()));
  }
  std::string str() const { return std::string(text); }

  unsigned field = 0;
  std::int64_t number = 0;
  std::string_view text;

 private:
  [[noreturn]] static void fail() { throw Malformed(); }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) fail();
    const std::string_view result = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return result;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::string_view rest_;
};

}  // namespace reel::nn::protobuf
