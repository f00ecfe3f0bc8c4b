#include <reel/nn/files/header.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include <reel/autograd/message.h>

namespace reel::nn::safetensors {
namespace {

constexpr std::size_t max_name = 1024;

// First those that Reel writes. Booleans and small integers are read as i32, 16-bit floats as f32,
// which represents them exactly; of the rest only the sizes are known.
constexpr Format known[] = {
    {"F32", 4, f32, true},      {"F64", 8, f64, true},      {"I32", 4, i32, true},
    {"F16", 2, f32, true},      {"BF16", 2, f32, true},     {"I64", 8, i32, true},
    {"U64", 8, i32, true},      {"U32", 4, i32, true},      {"I16", 2, i32, true},
    {"U16", 2, i32, true},      {"I8", 1, i32, true},       {"U8", 1, i32, true},
    {"BOOL", 1, i32, true},     {"C64", 8, f32, false},     {"F8_E4M3", 1, f32, false},
    {"F8_E5M2", 1, f32, false}, {"F8_E8M0", 1, f32, false},
};

enum Field : unsigned { dtype_field = 1, shape_field = 2, offsets_field = 4, all_fields = 7 };

// A SAX parser for the header's JSON that accepts nothing but what the format allows, so that
// nesting, duplicate keys and types of numbers are checked on the fly.
class HeaderReader {
 public:
  explicit HeaderReader(Header& header) : header_(header) {}

  bool start_object(std::size_t) {
    if (place_ == Place::outside) {
      place_ = Place::names;
    } else if (place_ == Place::names && key_ == metadata_key) {
      begin_metadata();
      place_ = Place::metadata;
    } else if (place_ == Place::names) {
      count_entry();
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
    if (place_ == Place::entry && entry().fields != all_fields)
      entry().fail("dtype, shape or data_offsets is missing");
    if (place_ == Place::entry && entry().offset_count != 2)
      entry().fail("data_offsets is not a pair of numbers");
    place_ = place_ == Place::names ? Place::outside : Place::names;
    return true;
  }
  bool start_array(std::size_t) {
    if (place_ != Place::entry || field_ == dtype_field) unexpected("an array");
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
      count_entry();
      if (!header_.metadata.emplace(key_, std::move(text)).second)
        fail(fmt::format("the key {} of __metadata__ occurs twice", in_quotes(key_)));
    } else if (place_ == Place::entry && field_ == dtype_field) {
      const auto format = std::ranges::find(formats(), std::string_view(text), &Format::name);
      if (format != formats().end())
        entry().format = &*format;
      else
        entry().unknown_format = text.substr(0, max_name);
    } else {
      unexpected("a string");
    }
    return true;
  }
  bool number_unsigned(Size value) {
    if (place_ != Place::numbers) unexpected("a number");
    Entry& e = entry();
    if (field_ == shape_field) {
      e.add_size(value);
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
  bool null() {  // some writers use it if there is no metadata
    if (place_ != Place::names || key_ != metadata_key) unexpected("null");
    begin_metadata();
    return true;
  }
  bool boolean(bool) { unexpected("a boolean"); }
  bool binary(std::vector<std::uint8_t>&) { unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const std::exception&) {
    fail(fmt::format("its header is not valid JSON in UTF-8 (at byte {} of it)", position));
  }

 private:
  enum class Place { outside, names, metadata, entry, numbers };

  [[noreturn]] static void fail(std::string reason) { throw Unreadable{std::move(reason)}; }
  void begin_metadata() {
    if (std::exchange(metadata_seen_, true)) fail("the key __metadata__ occurs twice");
  }
  void count_entry() const {
    if (header_.entries.size() + header_.metadata.size() == max_entries)
      fail(fmt::format("its header has more than {} tensors and texts", max_entries));
  }
  [[noreturn]] void unexpected(std::string_view what) const {
    switch (place_) {
      case Place::outside:
        fail(fmt::format("its header is {}, not an object", what));
      case Place::names:
        fail(fmt::format("the value of {} is {}, not an object", in_quotes(key_), what));
      case Place::metadata:
        fail(fmt::format("__metadata__: the value of {} is {}, not a string", in_quotes(key_),
                         what));
      default:
        header_.entries.back().fail(fmt::format("{} is or holds {}", name_of_field(), what));
    }
  }
  std::string_view name_of_field() const {
    return field_ == dtype_field ? "dtype" : field_ == shape_field ? "shape" : "data_offsets";
  }
  void start_field(std::string_view key) {
    for (const Field field : {dtype_field, shape_field, offsets_field}) {
      field_ = field;
      if (key != name_of_field()) continue;
      if (entry().fields & field) entry().fail(fmt::format("the key {} occurs twice", key));
      entry().fields |= field;
      return;
    }
    entry().fail(fmt::format("the key {} is unknown", in_quotes(key)));
  }
  Entry& entry() { return header_.entries.back(); }

  Header& header_;
  Place place_ = Place::outside;
  std::string key_;  // the last one outside an entry
  Field field_ = dtype_field;
  bool metadata_seen_ = false;
};

Header parsed(std::string_view text) {
  // The JSON library would skip a byte order mark and treat a NUL as the end.
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

// Checks that the data of an entry has the size that its shape requires.
void check_size(const Entry& entry, Size span) {
  if (!entry.format) return;
  Index bytes = 0;
  if (entry.too_large || __builtin_mul_overflow(entry.elements, entry.format->bytes, &bytes))
    entry.fail(fmt::format("its shape {} is too large", entry.shape_str()));
  if (entry.empty) bytes = 0;
  if (span != static_cast<Size>(bytes))
    entry.fail(fmt::format("its data_offsets [{}, {}] span {} bytes, but {} of shape {} takes {}",
                           entry.offsets[0], entry.offsets[1], span, entry.format->name,
                           entry.shape_str(), bytes));
}

// Sorts the entries by the order of their data and checks that they cover it without gaps or
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
    check_size(entry, last - first);
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

}  // namespace

std::span<const Format> formats() { return known; }

const Format& format_of(DType dtype) { return *std::ranges::find(known, dtype, &Format::dtype); }

std::string_view name_fault(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > max_name) return "is longer than 1024 bytes";
  if (name.find('\0') != std::string_view::npos) return "holds a NUL";
  return {};
}

void Entry::fail(std::string_view reason) const {
  throw Unreadable{fmt::format("tensor {}: {}", in_quotes(name), reason)};
}

void Entry::add_size(Size size) {
  if (rank < sizes.size()) sizes[rank] = size;
  ++rank;
  empty |= size == 0;
  too_large |= __builtin_mul_overflow(elements, std::max<Size>(size, 1), &elements);
}

std::string Entry::shape_str() const {
  return fmt::format("[{}{}]",
                     fmt::join(std::span(sizes).first(std::min(rank, sizes.size())), ", "),
                     rank > sizes.size() ? ", ..." : "");
}

std::string Entry::unfit() const {
  if (!format) return fmt::format("its dtype is {}, which is unknown", in_quotes(unknown_format));
  if (!format->read)
    return fmt::format("its dtype is {}, which Reel does not support", format->name);
  if (rank > sizes.size()) return fmt::format("its shape has more than {} axes", sizes.size());
  return {};
}

Header parse_header(std::string_view text, Size data_bytes) {
  Header header = parsed(text);
  check_layout(header.entries, data_bytes);
  return header;
}

}  // namespace reel::nn::safetensors
