#include <cctype>

#include <reel/nn/exchange/onnx_file.h>
#include <reel/nn/exchange/protobuf.h>

namespace reel::nn::onnx {
namespace {

using protobuf::Writer;

constexpr std::int64_t ir_version = 8;

Writer written(const Array& array) {
  Writer w;
  for (const std::int64_t size : array.dims) w.integer(1, size);
  w.integer(2, static_cast<std::int64_t>(array.type));
  w.text(8, array.name);
  w.text(9, array.bytes);
  return w;
}

Writer written(const std::string& name, const Attribute& attribute) {
  Writer w;
  w.text(1, name);
  if (attribute.kind == Attribute::real) w.real(2, attribute.number);
  if (attribute.kind == Attribute::integer) w.integer(3, attribute.ints.front());
  if (attribute.kind == Attribute::string) w.text(4, attribute.texts.front());
  if (attribute.kind == Attribute::integers)
    for (const std::int64_t i : attribute.ints) w.integer(8, i);
  if (attribute.kind == Attribute::strings)
    for (const std::string& s : attribute.texts) w.text(9, s);
  w.integer(20, attribute.kind);
  return w;
}

Writer written(const Node& node) {
  Writer w;
  for (const std::string& name : node.inputs) w.text(1, name);
  for (const std::string& name : node.outputs) w.text(2, name);
  w.text(3, node.name);
  w.text(4, node.operation);
  for (const auto& [name, attribute] : node.attributes) w.message(5, written(name, attribute));
  return w;
}

Writer written(const Value& value) {
  Writer shape;
  for (const std::string& size : value.dims) {
    Writer dim;
    if (std::isdigit(static_cast<unsigned char>(size[0])))
      dim.integer(1, std::stoll(size));
    else
      dim.text(2, size);
    shape.message(1, dim);
  }
  Writer tensor, type, w;
  tensor.integer(1, static_cast<std::int64_t>(value.type));
  tensor.message(2, shape);
  type.message(1, tensor);
  w.text(1, value.name);
  w.message(2, type);
  return w;
}

}  // namespace

Array Array::of(std::string name, const Tensor& x) {
  Array array{std::move(name), x.dtype() == reel::f32   ? Type::f32
                               : x.dtype() == reel::f64 ? Type::f64
                                                        : Type::i32};
  array.dims.assign(x.shape().begin(), x.shape().end());
  dispatch(x.dtype(), [&]<class T>() {
    const std::span<const T> numbers = x.values<T>();
    array.bytes.assign(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
  });
  return array;
}

Array Array::of(std::string name, std::vector<std::int64_t> numbers) {
  Array array{std::move(name), Type::i64, {std::ssize(numbers)}};
  array.bytes.assign(reinterpret_cast<const char*>(numbers.data()),
                     numbers.size() * sizeof(std::int64_t));
  return array;
}

std::string encoded(const Model& model) {
  Writer graph, opset, w;
  for (const Node& node : model.nodes) graph.message(1, written(node));
  graph.text(2, "reel");
  for (const Array& array : model.arrays) graph.message(5, written(array));
  for (const Value& value : model.inputs) graph.message(11, written(value));
  for (const Value& value : model.outputs) graph.message(12, written(value));
  opset.text(1, "");
  opset.integer(2, model.opset);
  w.integer(1, ir_version);
  w.text(2, "Reel");
  w.message(7, graph);
  w.message(8, opset);
  for (const auto& [key, value] : model.metadata) {
    Writer entry;
    entry.text(1, key);
    entry.text(2, value);
    w.message(14, entry);
  }
  return w.take();
}

}  // namespace reel::nn::onnx
