#include <reel/nn/files/safetensors.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <reel/nn/files/atomic_file.h>

namespace reel::nn {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

using Size = std::uint64_t;
constexpr Size length_bytes = 8;  // the length of the header comes first
constexpr Size max_header = 100'000'000;
constexpr std::size_t max_name = 1024;
constexpr std::string_view metadata_key = "__metadata__";

constexpr std::string_view format_name(DType dtype) {
  return dtype == f32 ? "F32" : dtype == f64 ? "F64" : "I32";
}

std::optional<DType> dtype_named(std::string_view name) {
  for (DType dtype : {f32, f64, i32})
    if (format_name(dtype) == name) return dtype;
  return std::nullopt;
}

// A name or text for a message: on one line, and not longer than one.
std::string printable(std::string_view text) {
  std::string line = nlohmann::json(text.substr(0, 80))
                         .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > 80) line.insert(line.size() - 1, "...");
  return line;
}

// What is wrong with a name; empty if nothing.
std::string_view name_fault(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > max_name) return "is longer than 1024 bytes";
  if (name.find('\0') != std::string_view::npos) return "holds a NUL";
  return {};
}

// Why a file cannot be read.
struct Unreadable {
  std::string reason;
};

struct Entry {
  enum Field : unsigned { dtype_field = 1, shape_field = 2, offsets_field = 4, all_fields = 7 };

  std::string name;
  unsigned fields = 0;  // those seen so far
  DType dtype = f32;
  std::array<Size, Shape::max_rank> sizes{};
  std::size_t rank = 0;
  std::array<Size, 2> offsets{};
  std::size_t offset_count = 0;

  [[noreturn]] void fail(std::string_view reason) const {
    throw Unreadable{fmt::format("tensor {}: {}", printable(name), reason)};
  }
  std::span<const Size> shape() const { return std::span(sizes).first(rank); }
};

struct Header {
  std::vector<Entry> entries;
  std::map<std::string, std::string, std::less<>> metadata;
};

// Receives the header's JSON piece by piece and takes nothing but what the format allows, so that
// depth, duplicate keys and the kinds of numbers are settled as they come.
class HeaderReader {
 public:
  explicit HeaderReader(Header& header) : header_(header) {}

  bool start_object(std::size_t) {
    if (place_ == Place::outside) {
      place_ = Place::names;
    } else if (place_ == Place::names && key_ == metadata_key) {
      if (std::exchange(metadata_seen_, true)) fail("the key __metadata__ occurs twice");
      place_ = Place::metadata;
    } else if (place_ == Place::names) {
      header_.entries.push_back({.name = key_});
      if (const std::string_view fault = name_fault(key_); !fault.empty())
        entry().fail(fmt::format("its name {}", fault));
      place_ = Place::entry;
    } else {
      unexpected("an object");
    }
    return true;
  }
  bool end_object() {
    if (place_ == Place::entry && entry().fields != Entry::all_fields)
      entry().fail("dtype, shape or data_offsets is missing");
    if (place_ == Place::entry && entry().offset_count != 2)
      entry().fail("data_offsets is not a pair of numbers");
    place_ = place_ == Place::names ? Place::outside : Place::names;
    return true;
  }
  bool start_array(std::size_t) {
    if (place_ != Place::entry || field_ == Entry::dtype_field) unexpected("an array");
    place_ = Place::numbers;
    return true;
  }
  bool end_array() {
    place_ = Place::entry;
    return true;
  }
  bool key(std::string& key) {
    if (place_ == Place::entry) {
      start_field(key);
    } else {
      key_ = std::move(key);
    }
    return true;
  }
  bool string(std::string& text) {
    if (place_ == Place::metadata) {
      if (!header_.metadata.emplace(key_, std::move(text)).second)
        fail(fmt::format("the key {} of __metadata__ occurs twice", printable(key_)));
    } else if (place_ == Place::entry && field_ == Entry::dtype_field) {
      const auto dtype = dtype_named(text);
      if (!dtype)
        entry().fail(
            fmt::format("its dtype is {}; only F32, F64 and I32 are read", printable(text)));
      entry().dtype = *dtype;
    } else {
      unexpected("a string");
    }
    return true;
  }
  bool number_unsigned(Size value) {
    if (place_ != Place::numbers) unexpected("a number");
    Entry& e = entry();
    if (field_ == Entry::shape_field) {
      if (e.rank == e.sizes.size()) e.fail("its shape has more than 4 axes");
      e.sizes[e.rank++] = value;
    } else {
      if (e.offset_count == 2) e.fail("data_offsets is not a pair of numbers");
      e.offsets[e.offset_count++] = value;
    }
    return true;
  }
  bool number_integer(std::int64_t) { unexpected("a negative number"); }
  bool number_float(double, const std::string&) {
    unexpected("a number that is not a 64-bit integer");
  }
  bool null() { unexpected("null"); }
  bool boolean(bool) { unexpected("a boolean"); }
  bool binary(std::vector<std::uint8_t>&) { unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const std::exception&) {
    fail(fmt::format("its header is not valid JSON in UTF-8 (at byte {} of it)", position));
  }

 private:
  enum class Place { outside, names, metadata, entry, numbers };

  [[noreturn]] static void fail(std::string reason) { throw Unreadable{std::move(reason)}; }
  [[noreturn]] void unexpected(std::string_view what) const {
    switch (place_) {
      case Place::outside:
        fail(fmt::format("its header is {}, not an object", what));
      case Place::names:
        fail(fmt::format("the value of {} is {}, not an object", printable(key_), what));
      case Place::metadata:
        fail(fmt::format("__metadata__: the value of {} is {}, not a string", printable(key_),
                         what));
      default:
        header_.entries.back().fail(fmt::format("{} is or holds {}", name_of_field(), what));
    }
  }
  std::string_view name_of_field() const {
    return field_ == Entry::dtype_field   ? "dtype"
           : field_ == Entry::shape_field ? "shape"
                                          : "data_offsets";
  }
  void start_field(std::string_view key) {
    for (Entry::Field field : {Entry::dtype_field, Entry::shape_field, Entry::offsets_field}) {
      field_ = field;
      if (key != name_of_field()) continue;
      if (entry().fields & field) entry().fail(fmt::format("the key {} occurs twice", key));
      entry().fields |= field;
      return;
    }
    entry().fail(fmt::format("the key {} is unknown", printable(key)));
  }
  Entry& entry() { return header_.entries.back(); }

  Header& header_;
  Place place_ = Place::outside;
  std::string key_;  // the last one outside an entry
  Entry::Field field_ = Entry::dtype_field;
  bool metadata_seen_ = false;
};

Header parsed(std::string_view text) {
  // The JSON library would skip a byte order mark and take a NUL for the end.
  if (const std::size_t start = text.find_first_not_of(" \t\r\n");
      start == std::string_view::npos || text[start] != '{')
    throw Unreadable{"its header does not begin with '{'; is it another kind of file?"};
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos)
    throw Unreadable{fmt::format("its header holds a NUL (at byte {} of it)", nul)};
  Header header;
  HeaderReader reader(header);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return header;
}

// The number of bytes of a tensor. Sizes of 0 are left out of the product, so that the product of
// any of the sizes is known to be representable.
Size checked_bytes(const Entry& entry) {
  Index product = static_cast<Index>(size_of(entry.dtype));
  for (Size size : entry.shape())
    if (__builtin_mul_overflow(product, std::max<Size>(size, 1), &product))
      entry.fail(fmt::format("its shape [{}] is too large", fmt::join(entry.shape(), ", ")));
  return std::ranges::count(entry.shape(), Size{0}) > 0 ? 0 : static_cast<Size>(product);
}

// Puts the entries in the order of their data and checks that they fill it without holes or
// overlaps.
void check_layout(std::vector<Entry>& entries, Size data_bytes) {
  std::ranges::sort(entries, {}, &Entry::name);
  if (const auto twin = std::ranges::adjacent_find(entries, {}, &Entry::name);
      twin != entries.end())
    twin->fail("the name occurs twice");
  std::ranges::sort(entries, {}, &Entry::offsets);
  Size end = 0;
  for (const Entry& entry : entries) {
    const auto [first, last] = entry.offsets;
    if (first > last)
      entry.fail(fmt::format("its data_offsets [{}, {}] run backwards", first, last));
    if (const Size bytes = checked_bytes(entry); last - first != bytes)
      entry.fail(fmt::format(
          "its data_offsets [{}, {}] span {} bytes, but {} of shape [{}] takes {}", first, last,
          last - first, format_name(entry.dtype), fmt::join(entry.shape(), ", "), bytes));
    if (first != end)
      entry.fail(fmt::format("its data begins at byte {} where {} was expected ({})", first, end,
                             first > end ? "a hole" : "an overlap"));
    end = last;
  }
  if (end > data_bytes)
    throw Unreadable{
        fmt::format("it is cut off: {} bytes are missing at the end", end - data_bytes)};
  if (end < data_bytes)
    throw Unreadable{fmt::format("{} bytes follow the last tensor", data_bytes - end)};
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) {
    std::error_code error;
    size_ = std::filesystem::file_size(path, error);
    if (!error) {
      errno = 0;
      file_.open(path, std::ios::binary);
      if (!file_) error.assign(errno, std::generic_category());
    }
    if (error) throw Unreadable{"cannot read: " + error.message()};
  }

  Size size() const { return size_; }
  void read(void* to, Size bytes) {
    if (!file_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes)))
      throw Unreadable{"cannot read: the file ended or failed on the way"};
  }

 private:
  std::ifstream file_;
  Size size_ = 0;
};

Header read_header(Reader& file) {
  if (file.size() < length_bytes)
    throw Unreadable{fmt::format("{} bytes are too few for a safetensors file", file.size())};
  Size length = 0;
  file.read(&length, length_bytes);
  if (length > max_header)
    throw Unreadable{
        fmt::format("a header of {} bytes is more than the {} allowed; is it another kind "
                    "of file?",
                    length, max_header)};
  if (length > file.size() - length_bytes)
    throw Unreadable{
        fmt::format("it is cut off: a header of {} bytes in a file of {}", length, file.size())};
  std::string text(length, '\0');
  file.read(text.data(), length);
  Header header = parsed(text);
  check_layout(header.entries, file.size() - length_bytes - length);
  return header;
}

Tensor read_tensor(Reader& file, const Entry& entry) {
  std::array<Index, Shape::max_rank> sizes{};
  std::ranges::copy(entry.shape(), sizes.begin());
  Tensor value(Shape(std::span<const Index>(sizes).first(entry.rank)), entry.dtype);
  file.read(value.buffer().data(), entry.offsets[1] - entry.offsets[0]);
  return value;
}

using Item = std::pair<const std::string, Tensor>;

std::span<const std::byte> bytes_of(const Tensor& x) {
  return dispatch(x.dtype(), [&]<class T>() { return std::as_bytes(x.values<T>()); });
}

// Text as JSON. Throws ValueError when it is not UTF-8.
std::string json_string(std::string_view text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    throw ValueError(fmt::format("save_safetensors: {} is not valid UTF-8", printable(text)));
  }
}

void check_item(const std::string& name, const Tensor& value) {
  const auto fail = [&](std::string_view reason) {
    throw ValueError(fmt::format("save_safetensors: tensor {}: {}", printable(name), reason));
  };
  if (const std::string_view fault = name_fault(name); !fault.empty())
    fail(fmt::format("its name {}", fault));
  if (name == metadata_key) fail("the format uses this name itself");
  if (!value.defined()) fail("it is undefined");
}

void require_header_size(std::size_t bytes) {
  if (bytes > max_header)
    throw ValueError(fmt::format(
        "save_safetensors: names and metadata take {} bytes; {} are allowed", bytes, max_header));
}

std::string header_of(const std::vector<const Item*>& items, const NamedTensors& content) {
  std::size_t size = 0;
  for (const auto& [key, text] : content.metadata) size += key.size() + text.size();
  require_header_size(size);

  std::vector<std::string> members, texts;
  for (const auto& [key, text] : content.metadata)
    texts.push_back(json_string(key) + ':' + json_string(text));
  if (!texts.empty())
    members.push_back(fmt::format("\"{}\":{{{}}}", metadata_key, fmt::join(texts, ",")));
  std::size_t begin = 0;
  for (const Item* item : items) {
    const auto& [name, value] = *item;
    const std::size_t end = begin + bytes_of(value).size();
    members.push_back(fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                  json_string(name), format_name(value.dtype()),
                                  fmt::join(value.shape().begin(), value.shape().end(), ","), begin,
                                  end));
    begin = end;
  }
  std::string header = fmt::format("{{{}}}", fmt::join(members, ","));
  header.resize((header.size() + 7) / 8 * 8, ' ');  // aligns the numbers
  require_header_size(header.size());
  return header;
}

}  // namespace

void save_safetensors(const std::filesystem::path& path, const NamedTensors& content) {
  std::vector<const Item*> items;
  for (const Item& item : content.tensors) {
    check_item(item.first, item.second);
    items.push_back(&item);
  }
  std::ranges::stable_sort(items, std::greater(),
                           [](const Item* item) { return size_of(item->second.dtype()); });
  const std::string header = header_of(items, content);
  const Size length = header.size();

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const Item* item : items) file.write(bytes_of(item->second));
  file.commit();
}

NamedTensors load_safetensors(const std::filesystem::path& path) {
  try {
    Reader file(path);
    Header header = read_header(file);
    NamedTensors content{.tensors = {}, .metadata = std::move(header.metadata)};
    for (Entry& entry : header.entries) {
      Tensor value = read_tensor(file, entry);
      content.tensors.emplace(std::move(entry.name), std::move(value));
    }
    return content;
  } catch (const Unreadable& unreadable) {
    throw FileError(fmt::format("{}: {}", path.string(), unreadable.reason));
  } catch (const MemoryError& error) {
    throw FileError(fmt::format("{}: {}", path.string(), error.what()));
  } catch (const std::bad_alloc&) {
    throw FileError(fmt::format("{}: not enough memory for its tensors", path.string()));
  }
}

}  // namespace reel::nn
