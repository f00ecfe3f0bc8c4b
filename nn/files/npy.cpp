#include <reel/nn/files/npy.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include <reel/autograd/message.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/nn/files/file.h>
#include <reel/nn/files/half.h>
#include <reel/nn/files/npy_format.h>

namespace reel::nn {
namespace npy {
namespace {

constexpr std::string_view magic = "\x93NUMPY";
constexpr std::size_t longest_header = 10'000;  // as in NumPy

// What the header says.
struct Header {
  char order = '=', kind = 0;  // of bytes, and of the numbers: f, i, u, b
  Index bytes = 0;             // per number
  bool fortran = false;
  std::vector<Index> shape;
  std::size_t data = 0;  // the offset of the numbers

  std::string type() const { return fmt::format("{}{}", kind, bytes); }
};

[[noreturn]] void malformed(const std::string& reason) { throw Unreadable{reason}; }
[[noreturn]] void unfit(const std::string& reason) { throw Unreadable{reason, true}; }

// The text of the header, a literal of a Python dict, and where it ends.
std::pair<std::string, std::size_t> text_of(std::span<const std::byte> file) {
  const auto* bytes = reinterpret_cast<const char*>(file.data());
  const std::string_view content(bytes, file.size());
  if (content.size() < 10 || !content.starts_with(magic))
    malformed("it is not a .npy file, which begins with \\x93NUMPY");
  const int version = static_cast<unsigned char>(content[6]);
  const std::size_t width = version == 1 ? 2 : 4;
  if (version < 1 || version > 3) malformed(fmt::format("its version {} is unknown", version));
  const std::size_t begin = 8 + width;
  std::size_t length = 0;
  for (std::size_t i = 0; i < width && 8 + i < content.size(); ++i)
    length |= static_cast<std::size_t>(static_cast<unsigned char>(content[8 + i])) << (8 * i);
  if (length > longest_header)
    malformed(
        fmt::format("a header of {} bytes is more than the {} allowed", length, longest_header));
  if (content.size() < begin || content.size() - begin < length)
    malformed("it is cut off within its header");
  return {std::string(content.substr(begin, length)), begin + length};
}

// Reads the dict: three keys in any order, each once.
class DictReader {
 public:
  explicit DictReader(std::string_view text) : text_(text) {}

  Header read() {
    Header header;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr" && first(0))
        set_type(header, quoted());
      else if (key == "fortran_order" && first(1))
        header.fortran = boolean();
      else if (key == "shape" && first(2))
        header.shape = sizes();
      else
        fail();
      if (accept('}')) break;
      expect(',');
    }
    skip_spaces();
    if (at_ < text_.size() || seen_ != 0b111) fail();
    return header;
  }

 private:
  [[noreturn]] void fail() const {
    malformed(fmt::format("its header is not a dict of descr, fortran_order and shape: {}",
                          in_quotes(text_)));
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    skip_spaces();
    const bool is_there = at_ < text_.size() && text_[at_] == c;
    if (is_there) ++at_;
    return is_there;
  }
  void expect(char c) {
    if (!accept(c)) fail();
  }
  bool first(int key) {
    const unsigned bit = 1u << key, before = std::exchange(seen_, seen_ | bit);
    return (before & bit) == 0;
  }
  std::string_view quoted() {
    skip_spaces();
    const char quote = at_ < text_.size() ? text_[at_] : ' ';
    const std::size_t end = quote == '\'' || quote == '"' ? text_.find(quote, at_ + 1) : text_.npos;
    if (end == text_.npos) fail();
    const std::string_view inside = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return inside;
  }
  bool boolean() {
    skip_spaces();
    for (const std::string_view word : {"True", "False"})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return word == "True";
      }
    fail();
  }
  std::vector<Index> sizes() {
    std::vector<Index> sizes;
    expect('(');
    while (!accept(')')) {
      skip_spaces();
      const char* const end = text_.data() + text_.size();
      const auto [next, error] = std::from_chars(text_.data() + at_, end, sizes.emplace_back());
      if (error != std::errc() || sizes.back() < 0) fail();
      at_ = static_cast<std::size_t>(next - text_.data());
      if (accept(')')) break;
      expect(',');
    }
    return sizes;
  }
  // "<f4": the order of the bytes, the kind of number and its bytes.
  void set_type(Header& header, std::string_view type) const {
    if (!type.empty() && std::string_view("<>|=").find(type[0]) != type.npos) {
      header.order = type[0];
      type.remove_prefix(1);
    }
    if (type.empty()) fail();
    header.kind = type[0];
    const char* const end = type.data() + type.size();
    const auto [next, error] = std::from_chars(type.data() + 1, end, header.bytes);
    if (error != std::errc() || next != end || header.bytes < 1)
      unfit(fmt::format("its numbers are {}, which Reel does not read", in_quotes(type)));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  unsigned seen_ = 0;
};

Header parse_header(std::span<const std::byte> file) {
  const auto [text, data] = text_of(file);
  Header header = DictReader(text).read();
  header.data = data;
  return header;
}

Shape checked_shape(const Header& header, std::size_t bytes_there) {
  if (header.shape.size() > Shape::max_rank)
    unfit(fmt::format("it has {} axes, and tensors at most {}", header.shape.size(),
                      Shape::max_rank));
  Index bytes = header.bytes;
  for (const Index size : header.shape)
    if (__builtin_mul_overflow(bytes, size, &bytes)) malformed("its shape is too large");
  if (static_cast<std::size_t>(bytes) != bytes_there)
    malformed(fmt::format("{} of shape [{}] take {} bytes, but {} follow", header.type(),
                          fmt::join(header.shape, ", "), bytes, bytes_there));
  return Shape(std::span<const Index>(header.shape));
}

template <class Stored>
Stored loaded(const std::byte* from, bool swap) {
  std::array<std::byte, sizeof(Stored)> bytes;
  std::memcpy(bytes.data(), from, sizeof(Stored));
  if (swap) std::ranges::reverse(bytes);
  return std::bit_cast<Stored>(bytes);
}

// Fills x with numbers stored as `Stored`, one after another or, in Fortran order, with the first
// axis fastest.
template <class Stored, Element T, class Convert>
void fill(const Header& header, const std::byte* data, Tensor& x, Convert convert) {
  const bool swap = header.order == '>';
  const std::span<T> values = x.begin_update<T>();
  const Shape& shape = x.shape();
  for (Index i = 0; i < x.size(); ++i) {
    Index from = i;
    if (header.fortran) {
      from = 0;
      for (int axis = shape.rank() - 1; axis >= 0; --axis)
        from = from * shape[axis] + i / shape.stride(axis) % shape[axis];
    }
    const auto stored =
        loaded<Stored>(data + static_cast<std::size_t>(from) * sizeof(Stored), swap);
    values[static_cast<std::size_t>(i)] = convert(stored);
  }
}

template <class Stored>
Tensor integers(const Header& header, const Shape& shape, const std::byte* data) {
  Tensor x(shape, i32);
  fill<Stored, std::int32_t>(header, data, x, [](Stored value) {
    if (!std::in_range<std::int32_t>(value))
      unfit(fmt::format("its number {} is out of range for i32", value));
    return static_cast<std::int32_t>(value);
  });
  return x;
}

template <Element T>
Tensor reals(const Header& header, const Shape& shape, const std::byte* data) {
  Tensor x(shape, dtype_of<T>);
  fill<T, T>(header, data, x, [](T value) { return value; });
  return x;
}

Tensor read_values(const Header& header, const Shape& shape, const std::byte* data) {
  const std::string type = header.type();
  if (type == "f4") return reals<float>(header, shape, data);
  if (type == "f8") return reals<double>(header, shape, data);
  if (type == "i1") return integers<signed char>(header, shape, data);
  if (type == "i2") return integers<std::int16_t>(header, shape, data);
  if (type == "i4") return integers<std::int32_t>(header, shape, data);
  if (type == "i8") return integers<std::int64_t>(header, shape, data);
  if (type == "u1" || type == "b1") return integers<unsigned char>(header, shape, data);
  if (type == "u2") return integers<std::uint16_t>(header, shape, data);
  if (type == "u4") return integers<std::uint32_t>(header, shape, data);
  if (type == "u8") return integers<std::uint64_t>(header, shape, data);
  if (type != "f2")
    unfit(fmt::format("its numbers are {}, which Reel does not read", in_quotes(type)));
  Tensor x(shape, f32);
  fill<std::uint16_t, float>(header, data, x,
                             [](std::uint16_t h) { return std::bit_cast<float>(widened_f16(h)); });
  return x;
}

}  // namespace

Tensor parse(std::span<const std::byte> file) {
  const Header header = parse_header(file);
  const Shape shape = checked_shape(header, file.size() - header.data);
  return read_values(header, shape, file.data() + header.data);
}

std::string header_of(const Tensor& x) {
  const char* const type = x.dtype() == f32 ? "<f4" : x.dtype() == f64 ? "<f8" : "<i4";
  std::string dict =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", type,
                  fmt::join(x.shape().begin(), x.shape().end(), ", "), x.rank() == 1 ? "," : "");
  // The numbers begin at a multiple of 64 bytes.
  constexpr std::size_t before = magic.size() + 2 + 2;
  dict.resize((before + dict.size() + 1 + 63) / 64 * 64 - before - 1, ' ');
  dict += '\n';
  std::string header(magic);
  header += {1, 0, static_cast<char>(dict.size() & 0xFF), static_cast<char>(dict.size() >> 8)};
  return header + dict;
}

}  // namespace npy

void save_npy(const Location& where, const Tensor& x, Site site) {
  if (!x.defined()) throw ValueError("save_npy: the tensor is undefined", site);
  AtomicFile file(where);
  file.write(npy::header_of(x));
  dispatch(x.dtype(), [&]<class T>() { file.write(std::as_bytes(x.values<T>())); });
  file.commit();
}

Tensor load_npy(const Location& where) {
  File file = File::regular(where, O_RDONLY);
  std::vector<std::byte> content(file.size());
  content.resize(file.read(content));
  try {
    return npy::parse(content);
  } catch (const npy::Unreadable& unreadable) {
    throw FileError(fmt::format("{}: {}", where.str(), unreadable.reason));
  }
}

}  // namespace reel::nn
