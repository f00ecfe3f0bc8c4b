#include "event_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>

namespace reel::char_lm {
namespace {

// CRC-32C (Castagnoli), reflected: RFC 3720, appendix B.4; masked as TFRecord wants it.
std::uint32_t masked_crc(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> entries{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      entries[i] = i;
      for (int bit = 0; bit < 8; ++bit)
        entries[i] = (entries[i] >> 1) ^ (entries[i] & 1 ? 0x82F63B78u : 0u);
    }
    return entries;
  }();
  std::uint32_t crc = ~0u;
  for (const char c : bytes) crc = table[(crc ^ static_cast<unsigned char>(c)) & 0xFF] ^ (crc >> 8);
  return std::rotr(~crc, 15) + 0xA282EAD8u;
}

std::string little_endian(std::uint64_t value, int bytes) {
  std::string result;
  for (int i = 0; i < bytes; ++i) result += static_cast<char>((value >> (8 * i)) & 0xFF);
  return result;
}

// A message in the wire format of Protocol Buffers; fields are told by their numbers.
class Message {
 public:
  Message& varint(std::uint64_t field, std::uint64_t value) {
    key(field, 0);
    put(value);
    return *this;
  }
  Message& number(std::uint64_t field, double value) {
    key(field, 1);
    bytes_ += little_endian(std::bit_cast<std::uint64_t>(value), 8);
    return *this;
  }
  Message& single(std::uint64_t field, float value) {
    key(field, 5);
    bytes_ += little_endian(std::bit_cast<std::uint32_t>(value), 4);
    return *this;
  }
  Message& bytes(std::uint64_t field, std::string_view value) {
    key(field, 2);
    put(value.size());
    bytes_ += value;
    return *this;
  }
  Message& numbers(std::uint64_t field, const std::vector<double>& values) {
    std::string packed;
    for (const double value : values)
      packed += little_endian(std::bit_cast<std::uint64_t>(value), 8);
    return bytes(field, packed);
  }
  const std::string& str() const { return bytes_; }

 private:
  void key(std::uint64_t field, std::uint64_t type) { put((field << 3) | type); }
  void put(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

Message event(Index step) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return Message().number(1, now.count()).varint(2, static_cast<std::uint64_t>(step));
}

}  // namespace

ValueCounts count_values(std::span<const double> values, std::size_t bins) {
  ValueCounts found;
  if (values.empty()) return found;
  const auto [least, largest] = std::ranges::minmax(values);
  found.least = least;
  found.largest = largest;
  found.count = static_cast<double>(values.size());
  const auto parts = static_cast<double>(bins);
  const double width = largest / parts - least / parts;  // the difference may be infinite
  for (std::size_t i = 1; i < bins; ++i)
    found.limits.push_back(least + width * static_cast<double>(i));
  found.limits.push_back(largest);
  found.counts.resize(bins);
  for (const double value : values) {
    found.sum += value;
    found.sum_of_squares += value * value;
    const double bin = width > 0 ? value / width - least / width : 0;
    found.counts[std::min(static_cast<std::size_t>(bin), bins - 1)] += 1;
  }
  return found;
}

EventFile::EventFile(const nn::Location& where, Index last_step)
    : file_(nn::File::regular(where, O_WRONLY | O_CREAT | O_EXCL)) {
  constexpr std::uint64_t start = 1;
  add_record(event(0).bytes(3, "brain.Event:2").str());
  add_record(event(last_step + 1).bytes(7, Message().varint(1, start).str()).str());
}

void EventFile::scalar(std::string_view tag, Index step, double value) {
  add_value(step, Message().bytes(1, tag).single(2, static_cast<float>(value)).str());
}

void EventFile::histogram(std::string_view tag, Index step, const ValueCounts& c) {
  const Message counts = Message()
                             .number(1, c.least)
                             .number(2, c.largest)
                             .number(3, c.count)
                             .number(4, c.sum)
                             .number(5, c.sum_of_squares)
                             .numbers(6, c.limits)
                             .numbers(7, c.counts);
  add_value(step, Message().bytes(1, tag).bytes(5, counts.str()).str());
}

// The text plugin takes a tensor of one string.
void EventFile::text(std::string_view tag, Index step, std::string_view text) {
  constexpr std::uint64_t of_strings = 7;
  const Message shape = Message().bytes(2, Message().varint(1, 1).str());
  const Message tensor = Message().varint(1, of_strings).bytes(2, shape.str()).bytes(8, text);
  const Message metadata = Message().bytes(1, Message().bytes(1, "text").str());
  add_value(step, Message().bytes(1, tag).bytes(8, tensor.str()).bytes(9, metadata.str()).str());
}

void EventFile::add_value(Index step, std::string_view value) {
  add_record(event(step).bytes(5, Message().bytes(1, value).str()).str());
}

void EventFile::add_record(std::string_view record) {
  const std::string length = little_endian(record.size(), 8);
  const std::string framed = length + little_endian(masked_crc(length), 4) + std::string(record) +
                             little_endian(masked_crc(record), 4);
  file_.write(std::as_bytes(std::span(framed)));
}

}  // namespace reel::char_lm
