#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/dtype.h>
#include <reel/autograd/shape.h>

/// The header of a safetensors file, parsed as untrusted input.
namespace reel::nn::safetensors {

using Size = std::uint64_t;

constexpr Size max_header = 100'000'000;  ///< bytes, as in the format's own library
/// Tensors and texts together. The largest models have some ten thousand; millions of tiny entries
/// would take ten times the memory of the header text.
constexpr std::size_t max_entries = 250'000;
constexpr std::string_view metadata_key = "__metadata__";

/// An element type of the format.
struct Format {
  std::string_view name;
  Size bytes;   ///< per element
  DType dtype;  ///< in which the values are stored, if they are read
  bool read;
};
/// The known formats.
std::span<const Format> formats();
/// The format in which a dtype is written.
const Format& format_of(DType dtype);

/// What is wrong with a name; empty if nothing.
std::string_view name_fault(std::string_view name);

/// Why a file cannot be read.
struct Unreadable {
  std::string reason;
};

/// What the header says about a tensor.
struct Entry {
  std::string name;
  const Format* format = nullptr;  ///< null for one that is unknown
  std::string unknown_format = {};
  std::array<Size, Shape::max_rank> sizes = {};  ///< the first ones
  std::size_t rank = 0;                          ///< may be more than Shape::max_rank
  Index elements = 1;                            ///< the product of all nonzero sizes
  bool empty = false, too_large = false;         ///< a size is 0; the product overflows
  std::array<Size, 2> offsets = {};
  std::size_t offset_count = 0;
  unsigned fields = 0;  ///< bit mask of those seen so far

  [[noreturn]] void fail(std::string_view reason) const;
  void add_size(Size size);
  /// "F32 of shape [2, 3]".
  std::string shape_str() const;
  /// Why Reel cannot represent the tensor; empty if it can.
  std::string unfit() const;
};

struct Header {
  std::vector<Entry> entries;  ///< in the order of their data, which they fill without gaps
  std::map<std::string, std::string, std::less<>> metadata;
};

/// Parses the text of a header that is followed by `data_bytes` bytes of data. Throws Unreadable.
Header parse_header(std::string_view text, Size data_bytes);

}  // namespace reel::nn::safetensors
