#include <reel/nn/exchange/onnx_import.h>

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include <reel/autograd/message.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/exchange/onnx.h>
#include <reel/nn/files/file.h>

namespace reel::nn {
namespace onnx {
namespace {

constexpr std::int64_t first_opset = 7, last_opset = 21;

DType dtype_of(const Model& model) {
  for (const Array& array : model.arrays)
    if (array.type == Type::f64) return f64;
  return f32;
}

bool is_integer(Type type) { return type == Type::i64 || type == Type::i32; }

std::string identifier(const std::string& name) {
  std::string result;
  for (const char c : name) result += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  if (result.empty() || std::isdigit(static_cast<unsigned char>(result[0]))) result = '_' + result;
  return result;
}

}  // namespace

Importer::Importer(const Model& model)
    : model_(model), params_(0, dtype_of(model)), graph_(params_) {
  for (const Array& array : model.arrays)
    if (!arrays_.emplace(array.name, &array).second)
      throw Unreadable{fmt::format("two arrays are named {}", in_quotes(array.name))};
  for (const Node& node : model.nodes) {
    for (const std::string& name : node.inputs) readers_[name].push_back(&node);
    for (const std::string& name : node.outputs) makers_[name] = &node;
  }
  // What a graph returns is read, too.
  for (const Value& output : model.outputs) readers_[output.name].push_back(nullptr);
  constants_.reserve(model.nodes.size());
}

Graph Importer::imported() {
  if (model_.opset < first_opset || model_.opset > last_opset)
    throw Unreadable{fmt::format("its opset is {}, and those from {} to {} are read", model_.opset,
                                 first_opset, last_opset)};
  for (const Value& input : model_.inputs) {
    if (arrays_.contains(input.name)) continue;  // in old files weights are inputs with values
    const bool is_index = is_integer(input.type);
    if (!is_index && input.type != Type::f32 && input.type != Type::f64 && input.type != Type::f16)
      throw Unreadable{
          fmt::format("its input {} has elements of the type {}, which Reel does not read",
                      in_quotes(input.name), static_cast<int>(input.type))};
    const graph::InputKind kind =
        is_index ? input.dims.size() == 1 ? graph::InputKind::lengths : graph::InputKind::tokens
                 : graph::InputKind::features;
    values_[input.name] = graph_.input({identifier(input.name), kind, input.dims});
  }
  for (const Node& node : model_.nodes) {
    if (done_.contains(&node)) continue;
    node_ = &node;
    if (node.outputs.empty()) fail("it has no output");
    const auto handler = handlers().find(node.operation);
    if (handler == handlers().end() || (!node.domain.empty() && node.domain != "ai.onnx"))
      fail("there is no such operator in Reel");
    (this->*handler->second)();
  }
  node_ = nullptr;
  for (const Value& output : model_.outputs)
    graph_.output(identifier(output.name), value(output.name));
  return std::move(graph_);
}

const std::map<std::string_view, Importer::Handler>& Importer::handlers() {
  using I = Importer;
  using enum graph::Function;
  static const std::map<std::string_view, Handler> all{
      {"Add", &I::of_function<add>},
      {"Cast", &I::cast},
      {"Concat", &I::concat},
      {"Constant", &I::constant_node},
      {"ConstantOfShape", &I::constant_of_shape},
      {"Div", &I::of_function<div>},
      {"Dropout", &I::dropout},
      {"Expand", &I::of_function<expand>},
      {"Flatten", &I::flatten},
      {"GRU", &I::recurrent<GruCell>},
      {"Gather", &I::gather},
      {"Gemm", &I::gemm},
      {"GreaterOrEqual", &I::of_function<greater_equal>},
      {"Identity", &I::identity},
      {"LSTM", &I::recurrent<LstmCell>},
      {"LayerNormalization", &I::layer_normalization},
      {"Less", &I::of_function<less>},
      {"LogSoftmax", &I::softmax<true>},
      {"MatMul", &I::matmul},
      {"Mul", &I::of_function<mul>},
      {"OneHot", &I::one_hot},
      {"Or", &I::of_function<logical_or>},
      {"RNN", &I::recurrent<RnnCell>},
      {"Range", &I::of_function<range>},
      {"Relu", &I::of_function<relu>},
      {"Reshape", &I::reshape},
      {"Shape", &I::of_function<shape>},
      {"Sigmoid", &I::of_function<sigmoid>},
      {"Slice", &I::slice},
      {"Softmax", &I::softmax<false>},
      {"Sqrt", &I::of_function<sqrt>},
      {"Squeeze", &I::squeeze},
      {"Sub", &I::of_function<sub>},
      {"Tanh", &I::of_function<graph::Function::tanh>},
      {"Transpose", &I::transpose},
      {"Unsqueeze", &I::unsqueeze},
      {"Where", &I::of_function<where>},
  };
  return all;
}

// ------------------------------------------------------------------------------ parts of a node

void Importer::fail(const std::string& what) const {
  throw Unreadable{fmt::format("node {} ({}): {}", in_quotes(node_->name),
                               printable(node_->operation, 80), what)};
}

void Importer::allow(std::initializer_list<std::string_view> attributes) const {
  for (const auto& [name, value] : node_->attributes)
    if (std::ranges::find(attributes, name) == attributes.end())
      fail(fmt::format("the attribute {} is not supported", in_quotes(name)));
}

const Attribute* Importer::attribute(std::string_view name) const {
  const auto found = node_->attributes.find(std::string(name));
  return found == node_->attributes.end() ? nullptr : &found->second;
}

std::int64_t Importer::integer(std::string_view name, std::int64_t otherwise) const {
  const Attribute* const given = attribute(name);
  if (given && given->ints.size() != 1)
    fail(fmt::format("the attribute {} is not a whole number", name));
  return given ? given->ints.front() : otherwise;
}

float Importer::real(std::string_view name, float otherwise) const {
  const Attribute* const given = attribute(name);
  return given ? given->number : otherwise;
}

std::string Importer::text(std::string_view name, const char* otherwise) const {
  const Attribute* const given = attribute(name);
  if (given && given->texts.size() != 1) fail(fmt::format("the attribute {} is not a text", name));
  return given ? given->texts.front() : otherwise;
}

bool Importer::has_input(std::size_t i) const {
  return i < node_->inputs.size() && !node_->inputs[i].empty();
}

const std::string& Importer::input_name(std::size_t i) const {
  if (!has_input(i)) fail(fmt::format("its input {} is missing", i));
  return node_->inputs[i];
}

GraphValue Importer::in(std::size_t i) { return value(input_name(i)); }

const Array* Importer::array(std::size_t i) const {
  const auto found = arrays_.find(input_name(i));
  return found == arrays_.end() ? nullptr : found->second;
}

std::optional<std::vector<std::int64_t>> Importer::numbers(std::size_t i,
                                                           std::string_view name) const {
  if (has_input(i)) {
    const Array* const given = array(i);
    if (!given)
      fail(fmt::format("its input {} is computed, but has to be a constant",
                       in_quotes(input_name(i))));
    return given->integers();
  }
  if (const Attribute* const given = name.empty() ? nullptr : attribute(name)) return given->ints;
  return {};
}

void Importer::set(std::size_t output, GraphValue value) {
  if (output >= node_->outputs.size() || node_->outputs[output].empty()) return;
  values_[node_->outputs[output]] = value;
}

void Importer::function(graph::Function f) {
  std::vector<GraphValue> inputs;
  for (std::size_t i = 0; i < node_->inputs.size(); ++i) inputs.push_back(in(i));
  using enum graph::Function;
  const std::size_t expected = f == where || f == range ? 3 : f < sqrt || f == expand ? 2 : 1;
  if (inputs.size() != expected)
    fail(fmt::format("it has {} inputs, not {}", inputs.size(), expected));
  set(0, graph_.apply(f, inputs));
}

// -------------------------------------------------------------------------------- what names mean

GraphValue Importer::value(const std::string& name) {
  if (const auto found = values_.find(name); found != values_.end()) return found->second;
  // The output of a recurrent node in its own form, which few read.
  if (const auto found = sequences_.find(name); found != sequences_.end()) {
    const GraphValue split =
        graph_.apply(graph::Reshape{{0, 0, directions_.at(name), -1}}, {found->second});
    return values_[name] = graph_.apply(graph::Permute{{0, 2, 1, 3}}, {split});
  }
  if (const auto found = exchanged_.find(name); found != exchanged_.end())
    return values_[name] =
               graph_.apply(graph::Reshape{{0, 0, directions_.at(name), -1}}, {found->second});
  if (const auto found = arrays_.find(name); found != arrays_.end())
    return values_[name] = constant(*found->second);
  throw Unreadable{fmt::format("{} is read before anything has made it", in_quotes(name))};
}

// Reals are parameters; numbers of an index or a shape are not.
GraphValue Importer::constant(const Array& array) {
  if (is_integer(array.type)) return graph_.apply(graph::Constant{{}, array.tensor()}, {});
  const Tensor x = weights(array);
  if (x.size() <= 1) return graph_.apply(graph::Constant{{}, x}, {});
  const Param param =
      params_.create(part_for(array.name), x.shape(), [&](Rng&, const Shape&, DType) { return x; });
  return graph_.apply(graph::Constant{param, {}}, {});
}

Tensor Importer::weights(const Array& array) const {
  if (is_integer(array.type))
    throw Unreadable{
        fmt::format("array {} has whole numbers, but weights are real", in_quotes(array.name))};
  return array.tensor().to(params_.dtype());
}

std::string Importer::part_for(const std::string& name) {
  std::string part;
  for (const char c : name)
    part += std::isalnum(static_cast<unsigned char>(c))       ? c
            : c == '.' && !part.empty() && part.back() != '.' ? '.'
                                                              : '_';
  for (const std::string_view end : {".w", ".weight", "_weight", ".W"})
    if (part.ends_with(end) && part.size() > end.size()) {
      part.resize(part.size() - end.size());
      break;
    }
  while (part.ends_with('.')) part.back() = '_';
  if (part.empty()) part = "_";
  if (!parts_.insert(part).second)
    throw Unreadable{fmt::format("two weights or nodes would have the name {}, as {} has", part,
                                 in_quotes(name))};
  return part;
}

}  // namespace onnx

Graph load_onnx(const Location& where) {
  const NoRecord pause;
  File file = File::regular(where, O_RDONLY);
  std::string content(file.size(), '\0');
  content.resize(file.read(std::as_writable_bytes(std::span(content))));
  const auto fail = [&](const std::string& reason) {
    throw FileError(fmt::format("{}: {}", where.str(), reason));
  };
  try {
    onnx::Model model = onnx::decoded(content);
    // A file without a name, which is only in memory, has no folder.
    if (file.status().links > 0) onnx::read_external(model, where.path().parent_path());
    return onnx::Importer(model).imported();
  } catch (const onnx::Unreadable& unreadable) {
    fail(unreadable.reason);
  } catch (const Error& error) {  // a layer that cannot be made of such sizes
    fail(std::string(error.message()));
  }
  return Graph(Params());
}

}  // namespace reel::nn
