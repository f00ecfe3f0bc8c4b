#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <map>

#include <reel/autograd/message.h>
#include <reel/nn/exchange/onnx_file.h>
#include <reel/nn/files/file.h>

namespace reel::nn::onnx {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const Array& array, const std::string& why) {
  throw Unreadable{fmt::format("array {}: {}", in_quotes(array.name), why)};
}

// A number of bytes, which the format has as text.
std::uint64_t number(const Array& array, std::string_view what, const std::string& text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || rest != end)
    fail(array, fmt::format("the {} of its numbers in {} is {}, but has to be a number of bytes",
                            what, in_quotes(array.external->location), in_quotes(text)));
  return value;
}

void require_beside(const Array& array) {
  const fs::path location = system::from_utf8(array.external->location);
  const auto refuse = [&](std::string_view why) {
    fail(array, fmt::format("its location {} {}", in_quotes(array.external->location), why));
  };
  if (location.empty()) refuse("names no file");
  if (array.external->location.find('\0') != std::string::npos) refuse("has a zero byte");
  if (location.has_root_path())
    refuse("is an absolute path, but has to be relative to the folder of the model");
  for (const fs::path& part : location)
    if (part == "..") refuse("has \"..\", but has to stay in the folder of the model");
}

// The files of a model, each of which is opened once.
class Files {
 public:
  explicit Files(fs::path folder) : folder_(std::move(folder)) {}

  void read(Array& array) {
    require_beside(array);
    const std::uint64_t offset = number(array, "offset", array.external->offset);
    const std::uint64_t size = array.size_in_bytes();
    if (array.external->length) require_length(array, size);
    const Location where(folder_ / system::from_utf8(array.external->location));
    try {
      read(array, where, offset, size);
    } catch (const FileError& error) {
      fail(array, std::string(error.message()));
    }
    array.external.reset();
  }

 private:
  static void require_length(const Array& array, std::uint64_t size) {
    const std::uint64_t length = number(array, "length", *array.external->length);
    if (length != size)
      fail(array, fmt::format("it has {} bytes in {}, but its shape and type take {}", length,
                              in_quotes(array.external->location), size));
  }

  void read(Array& array, const Location& where, std::uint64_t offset, std::uint64_t size) {
    auto found = files_.find(where.path());
    if (found == files_.end())
      found = files_.emplace(where.path(), File::regular(where, O_RDONLY)).first;
    File& file = found->second;
    const std::uint64_t available = file.size();
    if (offset > available || size > available - offset)
      fail(array, fmt::format("its {} bytes from {} are not in {}, which has {}", size, offset,
                              where.str(), available));
    file.seek(offset);
    array.bytes.assign(size, '\0');
    if (file.read(std::as_writable_bytes(std::span(array.bytes))) != size)
      fail(array, fmt::format("{} became shorter while it was read", where.str()));
  }

  fs::path folder_;
  std::map<fs::path, File> files_;
};

}  // namespace

void read_external(Model& model, const fs::path& folder) {
  Files files(folder);
  // Those of other types are refused where they are used.
  const auto read = [&](Array& array) {
    if (array.external && array.has_known_type()) files.read(array);
  };
  for (Array& array : model.arrays) read(array);
  for (Node& node : model.nodes)
    for (auto& [name, attribute] : node.attributes) read(attribute.value);
}

}  // namespace reel::nn::onnx
