#include <reel/nn/files/safetensors.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include <reel/autograd/message.h>
#include <reel/nn/files/atomic_file.h>
#include <reel/nn/files/file.h>
#include <reel/nn/files/half.h>
#include <reel/nn/files/header.h>

namespace reel::nn {
namespace {

using namespace safetensors;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr Size length_bytes = 8;  // the length of the header comes first

class Reader {
 public:
  explicit Reader(const Location& where)
      : file_(File::regular(where, O_RDONLY)), size_(file_.size()) {}

  Size size() const { return size_; }
  void seek(Size offset) { file_.seek(offset); }
  void read(void* to, Size bytes) {
    if (file_.read({static_cast<std::byte*>(to), bytes}) != bytes)
      throw Unreadable{"cannot read: the file ended on the way"};
  }

 private:
  File file_;
  Size size_;
};

struct Contents {
  Header header;
  Size data;  // offset of the data
};

Contents read_header(Reader& file) {
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
  const Size data = length_bytes + length;
  return {parse_header(text, file.size() - data), data};
}

// Reads a tensor of another format, one `Stored` at a time. `convert` returns false for a number
// that the result cannot represent; the reason is then returned.
template <class Stored, class Value, class Convert>
std::string read_converted(Reader& file, std::span<Value> values, Convert convert) {
  std::array<Stored, 4096> chunk;
  for (std::size_t begin = 0; begin < values.size(); begin += chunk.size()) {
    const std::size_t count = std::min(chunk.size(), values.size() - begin);
    file.read(chunk.data(), count * sizeof(Stored));
    for (std::size_t i = 0; i < count; ++i)
      if (!convert(chunk[i], values[begin + i]))
        return fmt::format("its element {} is {}, which is out of range for i32", begin + i,
                           chunk[i]);
  }
  return {};
}

template <class Stored>
std::string read_integers(Reader& file, Tensor& to) {
  return read_converted<Stored>(
      file, to.begin_update<std::int32_t>(), [](Stored x, std::int32_t& value) {
        value =
            static_cast<std::int32_t>(x);  // NOLINT(bugprone-signed-char-misuse): I8 is a number
        return std::in_range<std::int32_t>(x);
      });
}

template <class Widen>
std::string read_halves(Reader& file, Tensor& to, Widen widen) {
  return read_converted<std::uint16_t>(file, to.begin_update<float>(),
                                       [&](std::uint16_t x, float& value) {
                                         value = std::bit_cast<float>(widen(x));
                                         return true;
                                       });
}

// Reads the numbers of an entry. Returns the reason if they cannot be represented.
std::string read_values(Reader& file, const Entry& entry, Tensor& to) {
  const std::string_view format = entry.format->name;
  if (format == "F16") return read_halves(file, to, widened_f16);
  if (format == "BF16") return read_halves(file, to, widened_bf16);
  if (format == "I64") return read_integers<std::int64_t>(file, to);
  if (format == "U64") return read_integers<std::uint64_t>(file, to);
  if (format == "U32") return read_integers<std::uint32_t>(file, to);
  if (format == "I16") return read_integers<std::int16_t>(file, to);
  if (format == "U16") return read_integers<std::uint16_t>(file, to);
  if (format == "I8") return read_integers<std::int8_t>(file, to);
  if (format == "U8") return read_integers<std::uint8_t>(file, to);
  if (format == "BOOL")
    return read_converted<std::uint8_t>(file, to.begin_update<std::int32_t>(),
                                        [](std::uint8_t x, std::int32_t& value) {
                                          value = x != 0;
                                          return true;
                                        });
  file.read(to.buffer().data(), entry.offsets[1] - entry.offsets[0]);
  return {};
}

void read_tensor(Reader& file, Size data, const Entry& entry, NamedTensors& content) {
  std::string reason = entry.unfit();
  if (reason.empty()) {
    std::array<Index, Shape::max_rank> sizes{};
    std::ranges::copy(entry.sizes, sizes.begin());
    Tensor value(Shape(std::span<const Index>(sizes).first(entry.rank)), entry.format->dtype);
    file.seek(data + entry.offsets[0]);
    reason = read_values(file, entry, value);
    if (reason.empty()) content.tensors.emplace(entry.name, std::move(value));
  }
  if (!reason.empty()) content.unread.emplace(entry.name, std::move(reason));
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
    throw ValueError(fmt::format("save_safetensors: {} is not valid UTF-8", in_quotes(text)),
                     SiteScope::current());
  }
}

void check_item(const std::string& name, const Tensor& value) {
  const auto fail = [&](std::string_view reason) {
    throw ValueError(fmt::format("save_safetensors: tensor {}: {}", in_quotes(name), reason),
                     SiteScope::current());
  };
  if (const std::string_view fault = name_fault(name); !fault.empty())
    fail(fmt::format("its name {}", fault));
  if (name == metadata_key) fail("the format uses this name itself");
  if (!value.defined()) fail("it is undefined");
}

void require_header_size(std::size_t bytes) {
  if (bytes > max_header)
    throw ValueError(
        fmt::format("save_safetensors: names and metadata take {} bytes; {} are allowed", bytes,
                    max_header),
        SiteScope::current());
}

std::string header_of(const std::vector<const Item*>& items, const NamedTensors& content) {
  if (const std::size_t count = items.size() + content.metadata.size(); count > max_entries)
    throw ValueError(fmt::format("save_safetensors: there are {} tensors and texts; {} are allowed",
                                 count, max_entries),
                     SiteScope::current());
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
                                  json_string(name), format_of(value.dtype()).name,
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

void save_safetensors(const Location& where, const NamedTensors& content, Site site) {
  const SiteScope scope(site);
  if (!content.unread.empty())
    throw ValueError(
        fmt::format(
            "save_safetensors: tensor {} was not read ({}) and would be lost; erase it first",
            in_quotes(content.unread.begin()->first), content.unread.begin()->second),
        site);
  std::vector<const Item*> items;
  for (const Item& item : content.tensors) {
    check_item(item.first, item.second);
    items.push_back(&item);
  }
  std::ranges::stable_sort(items, std::greater(),
                           [](const Item* item) { return size_of(item->second.dtype()); });
  const std::string header = header_of(items, content);
  const Size length = header.size();

  AtomicFile file(where);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const Item* item : items) file.write(bytes_of(item->second));
  file.commit();
}

NamedTensors load_safetensors(const Location& where) {
  constexpr std::string_view remedy = "free some, or raise the limit (ulimit -v)";
  try {
    Reader file(where);
    Contents contents = read_header(file);
    NamedTensors result{.metadata = std::move(contents.header.metadata)};
    for (const Entry& entry : contents.header.entries)
      read_tensor(file, contents.data, entry, result);
    return result;
  } catch (const Unreadable& unreadable) {
    throw FileError(fmt::format("{}: {}", where.str(), unreadable.reason));
  } catch (const MemoryError& error) {
    throw FileError(fmt::format("{}: not enough memory for its tensors ({}); {}", where.str(),
                                error.what(), remedy));
  } catch (const std::bad_alloc&) {
    throw FileError(fmt::format("{}: not enough memory for its tensors; {}", where.str(), remedy));
  }
}

}  // namespace reel::nn
