#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <utility>

#include <reel/autograd/message.h>
#include <reel/nn/exchange/onnx_file.h>
#include <reel/nn/exchange/protobuf.h>
#include <reel/nn/files/half.h>

namespace reel::nn::onnx {
namespace {

using protobuf::Fields;

template <class T>
void append(std::string& bytes, const std::vector<std::int64_t>& numbers) {
  for (const std::int64_t n : numbers) {
    const T value = static_cast<T>(n);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
}

// A text of a map of texts: its key and its value.
std::pair<std::string, std::string> read_entry(std::string_view bytes) {
  std::pair<std::string, std::string> entry;
  for (Fields f(bytes); f.next();)
    if (f.field <= 2) (f.field == 1 ? entry.first : entry.second) = f.str();
  return entry;
}

// Other keys, such as "checksum", are of no use here.
void read_external_entry(std::string_view bytes, External& external) {
  const auto [key, value] = read_entry(bytes);
  if (key == "location") external.location = value;
  if (key == "offset") external.offset = value;
  if (key == "length") external.length = value;
}

Array read_array(std::string_view bytes) {
  Array array;
  External external;
  bool is_external = false;
  std::vector<std::int64_t> ints;
  for (Fields f(bytes); f.next();) switch (f.field) {
      case 1:
        f.append(array.dims);
        break;
      case 2:
        array.type = static_cast<Type>(f.number);
        break;
      case 5:
      case 7:
        f.append(ints);
        break;
      case 8:
        array.name = f.str();
        break;
      case 4:
      case 9:
      case 10:  // float_data, raw_data and double_data have the same bytes
        array.bytes += f.text;
        break;
      case 13:
        read_external_entry(f.text, external);
        break;
      case 14:
        is_external = f.number == 1;
        break;
      default:
        break;
    }
  if (is_external) array.external = external;
  if (array.type == Type::i32) append<std::int32_t>(array.bytes, ints);
  if (array.type == Type::i64) append<std::int64_t>(array.bytes, ints);
  if (array.type == Type::f16) append<std::uint16_t>(array.bytes, ints);
  return array;
}

void read_attribute(std::string_view bytes, Node& node) {
  std::string name;
  Attribute attribute{.kind = 0};
  for (Fields f(bytes); f.next();) switch (f.field) {
      case 1:
        name = f.str();
        break;
      case 2:
        if (f.text.size() == 4) std::memcpy(&attribute.number, f.text.data(), 4);
        break;
      case 3:
      case 8:
        f.append(attribute.ints);
        break;
      case 4:
      case 9:
        attribute.texts.push_back(f.str());
        break;
      case 5:
        attribute.value = read_array(f.text);
        break;
      case 7:
        for (std::size_t at = 0; at + 4 <= f.text.size(); at += 4)
          std::memcpy(&attribute.floats.emplace_back(), f.text.data() + at, 4);
        break;
      case 20:
        attribute.kind = static_cast<std::int32_t>(f.number);
        break;
      default:
        break;
    }
  node.attributes.insert_or_assign(name, attribute);
}

Node read_node(std::string_view bytes) {
  Node node;
  for (Fields f(bytes); f.next();) switch (f.field) {
      case 1:
        node.inputs.push_back(f.str());
        break;
      case 2:
        node.outputs.push_back(f.str());
        break;
      case 3:
        node.name = f.str();
        break;
      case 4:
        node.operation = f.str();
        break;
      case 5:
        read_attribute(f.text, node);
        break;
      case 7:
        node.domain = f.str();
        break;
      default:
        break;
    }
  return node;
}

// The last message of a field, empty if there is none.
std::string_view inner(std::string_view bytes, unsigned field) {
  std::string_view found;
  for (Fields f(bytes); f.next();)
    if (f.field == field) found = f.text;
  return found;
}

Value read_value(std::string_view bytes) {
  Value value{std::string(inner(bytes, 1)), Type::none, {}};
  const std::string_view tensor = inner(inner(bytes, 2), 1);
  for (Fields f(tensor); f.next();)
    if (f.field == 1) value.type = static_cast<Type>(f.number);
  for (Fields f(inner(tensor, 2)); f.next();) {
    std::string size = "?";
    for (Fields dim(f.text); dim.next();)
      size = dim.field == 1 ? std::to_string(dim.number) : dim.str();
    value.dims.push_back(size);
  }
  return value;
}

void read_graph(std::string_view bytes, Model& model) {
  for (Fields f(bytes); f.next();) switch (f.field) {
      case 1:
        model.nodes.push_back(read_node(f.text));
        break;
      case 5:
        model.arrays.push_back(read_array(f.text));
        break;
      case 11:
        model.inputs.push_back(read_value(f.text));
        break;
      case 12:
        model.outputs.push_back(read_value(f.text));
        break;
      case 15:
        throw Unreadable{"it has sparse weights, which Reel does not read"};
      default:
        break;
    }
}

}  // namespace

namespace {

// Each number of the array, converted to T.
template <class Stored, Element T, class Convert>
Tensor converted(const Array& array, const Shape& shape, Convert convert) {
  Tensor x(shape, dtype_of<T>);
  const std::span<T> values = x.begin_update<T>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, array.bytes.data() + i * sizeof stored, sizeof stored);
    values[i] = convert(stored);
  }
  return x;
}

std::size_t bytes_of(Type type) {
  switch (type) {
    case Type::f16:
      return 2;
    case Type::f32:
    case Type::i32:
      return 4;
    case Type::i64:
    case Type::f64:
      return 8;
    default:
      return 0;
  }
}

// Throws unless the bytes are those of the shape.
void require_size(const Array& array) {
  const std::uint64_t size = array.size_in_bytes();
  if (array.external)
    throw Unreadable{
        fmt::format("array {} is in the file {}, but this model is only in memory, without a "
                    "folder; save it as a file beside that one, or with its weights",
                    in_quotes(array.name), in_quotes(array.external->location))};
  if (size != array.bytes.size())
    throw Unreadable{fmt::format("array {} has {} bytes, which its shape does not take",
                                 in_quotes(array.name), array.bytes.size())};
}

}  // namespace

bool Array::has_known_type() const { return bytes_of(type) > 0; }

std::uint64_t Array::size_in_bytes() const {
  if (!has_known_type())
    throw Unreadable{fmt::format("array {} has elements of the type {}, which Reel does not read",
                                 in_quotes(name), static_cast<int>(type))};
  auto size = static_cast<std::int64_t>(bytes_of(type));
  for (const std::int64_t n : dims)
    if (n < 0 || __builtin_mul_overflow(size, n, &size))
      throw Unreadable{
          fmt::format("array {} has a shape that takes no number of bytes", in_quotes(name))};
  return static_cast<std::uint64_t>(size);
}

Tensor Array::tensor() const {
  require_size(*this);
  if (dims.size() > Shape::max_rank)
    throw Unreadable{fmt::format("array {} has {} axes, and tensors at most {}", in_quotes(name),
                                 dims.size(), Shape::max_rank)};
  const Shape shape(std::span<const Index>(dims.data(), dims.size()));
  const auto same = [](auto x) { return x; };
  if (type == Type::f32) return converted<float, float>(*this, shape, same);
  if (type == Type::f64) return converted<double, double>(*this, shape, same);
  if (type == Type::i32) return converted<std::int32_t, std::int32_t>(*this, shape, same);
  if (type == Type::f16)
    return converted<std::uint16_t, float>(
        *this, shape, [](std::uint16_t h) { return std::bit_cast<float>(widened_f16(h)); });
  return converted<std::int64_t, std::int32_t>(*this, shape, [&](std::int64_t n) {
    if (!std::in_range<std::int32_t>(n))
      throw Unreadable{fmt::format("array {} has the number {}, which is out of range for i32",
                                   in_quotes(name), n)};
    return static_cast<std::int32_t>(n);
  });
}

std::vector<std::int64_t> Array::integers() const {
  if (type != Type::i64)
    throw Unreadable{
        fmt::format("array {} has to be of whole numbers of 64 bits", in_quotes(name))};
  require_size(*this);
  std::vector<std::int64_t> numbers(bytes.size() / sizeof(std::int64_t));
  std::memcpy(numbers.data(), bytes.data(), bytes.size());
  return numbers;
}

Model decoded(std::string_view file) try {
  Model model;
  bool has_graph = false;
  for (Fields f(file); f.next();) switch (f.field) {
      case 7:
        has_graph = true;
        read_graph(f.text, model);
        break;
      case 8: {
        std::int64_t version = 0;
        std::string domain;
        for (Fields of(f.text); of.next();)
          of.field == 1 ? void(domain = of.str()) : void(version = of.number);
        if (domain.empty() || domain == "ai.onnx") model.opset = version;
        break;
      }
      case 14:
        model.metadata[std::string(inner(f.text, 1))] = inner(f.text, 2);
        break;
      default:
        break;
    }
  if (!has_graph || model.opset == 0)
    throw Unreadable{"it is no ONNX file: it has no graph or opset"};
  return model;
} catch (const protobuf::Malformed&) {
  throw Unreadable{"it is no ONNX file, or a damaged one"};
}

}  // namespace reel::nn::onnx
