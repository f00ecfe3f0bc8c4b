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

/// The header of a safetensors file, read as hostile.
namespace reel::nn::safetensors {

using Size = std::uint64_t;

constexpr Size max_header = 100'000'000;  ///< bytes, as in the format's own library
/// Tensors and texts together. The largest models have some ten thousand; millions of tiny ones
/// take ten times the memory of their text.
constexpr std::size_t max_entries = 250'000;
constexpr std::string_view metadata_key = "__metadata__";

/// An element type of the format.
struct Format {
  std::string_view name;
  Size bytes;   ///< an element takes
  DType dtype;  ///< that holds the values, if they are read
  bool read;
};
/// Those that are known.
std::span<const Format> formats();
/// The one in which a dtype is written.
const Format& format_of(DType dtype);

/// What is wrong with a name; empty if nothing.
std::string_view name_fault(std::string_view name);

/// Why a file cannot be read.
struct Unreadable {
  std::string reason;
};

/// What the header says of a tensor.
struct Entry {
  std::string name;
  const Format* format = nullptr;  ///< null for one that is unknown
  std::string unknown_format = {};
  std::array<Size, Shape::max_rank> sizes = {};  ///< the first ones
  std::size_t rank = 0;                          ///< may be more than Shape::max_rank
  Index elements = 1;                            ///< the product of all sizes but those of 0
  bool empty = false, too_large = false;         ///< a size is 0; the product has no room
  std::array<Size, 2> offsets = {};
  std::size_t offset_count = 0;
  unsigned fields = 0;  ///< those seen so far

  [[noreturn]] void fail(std::string_view reason) const;
  void add_size(Size size);
  /// "F32 of shape [2, 3]".
  std::string shape_str() const;
  /// Why the tensor is none that Reel can have; empty if it is one.
  std::string unfit() const;
};

struct Header {
  std::vector<Entry> entries;  ///< in the order of their data, which they fill without holes
  std::map<std::string, std::string, std::less<>> metadata;
};

/// Reads the text of a header in front of so many bytes of data. Throws Unreadable.
Header parse_header(std::string_view text, Size data_bytes);

}  // namespace reel::nn::safetensors
