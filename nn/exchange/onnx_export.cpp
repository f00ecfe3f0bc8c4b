#include <fmt/format.h>

#include <array>
#include <cctype>
#include <cmath>
#include <limits>
#include <set>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/exchange/conversion.h>
#include <reel/nn/exchange/onnx.h>
#include <reel/nn/exchange/onnx_file.h>
#include <reel/nn/files/atomic_file.h>

namespace reel::nn {
namespace {

using onnx::Attribute;
using Names = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

constexpr std::int64_t opset = 17;

[[noreturn]] void refuse(const Param& param, std::string_view what) {
  throw ValueError(
      fmt::format("save_onnx: {} has {}, which ONNX does not have", module_of(param.name()), what),
      SiteScope::current());
}

// Throws unless the cell is one of ONNX's.
template <class C>
void require_exportable(const C& cell) {
  if constexpr (requires { cell.variant; })
    if (cell.variant != LstmVariant::standard) refuse(cell.w_ih, "another variant of the LSTM");
  if (cell.numbers[1].defined()) refuse(cell.w_ih, "layer norm within the cell");
  if (cell.params().projection.defined()) refuse(cell.w_ih, "a projection");
  if (std::isfinite(cell.cell_bound)) refuse(cell.w_ih, "a cell_clip");
  if (cell.dropout.zoneout_h > 0 || cell.dropout.zoneout_c > 0) refuse(cell.w_ih, "zoneout");
}

// The order of ONNX's gates and ours, and the operator.
struct CellForm {
  const char* operation;
  std::string_view ours, theirs;
};
CellForm form_of(const RnnCell&) { return {"RNN", "h", "h"}; }
CellForm form_of(const GruCell&) { return {"GRU", "rzn", "zrn"}; }
CellForm form_of(const LstmCell&) { return {"LSTM", "ifgo", "iofg"}; }

// The arrays of one direction.
struct CellArrays {
  Tensor w, r, b, peepholes;
};

template <class C>
CellArrays arrays_of(const C& cell) {
  const CellForm form = form_of(cell);
  const auto theirs = [&](const Tensor& x) {
    return exchange::reordered(x, form.ours, form.theirs);
  };
  exchange::Values biases{{"b", cell.b.value()}};
  if constexpr (requires { cell.b_hn; }) biases.emplace("b_hn", cell.b_hn.value());
  const std::vector<Tensor> both = exchange::two_biases(biases);
  CellArrays arrays{theirs(cell.w_ih.value()),
                    theirs(cell.w_hh.value()),
                    concat({theirs(both[0]), theirs(both[1])}, 0),
                    {}};
  if (cell.numbers[0].defined())
    arrays.peepholes = exchange::reordered(cell.numbers[0].value(), "ifo", "iof");
  return arrays;
}

// The sizes of inputs that may be any, by their names, in two runs: each has others.
struct TrialSizes {
  Index first, second;
};
std::map<std::string, TrialSizes> trial_sizes(const Graph& graph) {
  std::map<std::string, TrialSizes> sizes;
  for (const graph::Input& input : graph.inputs())
    for (const std::string& dim : input.dims)
      if (!std::isdigit(static_cast<unsigned char>(dim[0]))) {
        const auto i = static_cast<Index>(sizes.size());
        sizes.emplace(dim, TrialSizes{2 + i, 11 + 3 * i});
      }
  return sizes;
}

// The outputs of a model for zeros, and lengths of 1.
std::map<std::string, Tensor> outputs_at(const Graph& graph,
                                         const std::map<std::string, TrialSizes>& any,
                                         Index TrialSizes::*run) {
  std::map<std::string, Tensor> inputs;
  for (const graph::Input& input : graph.inputs()) {
    std::vector<Index> sizes;
    for (const std::string& dim : input.dims) {
      const auto found = any.find(dim);
      sizes.push_back(found == any.end() ? std::stoll(dim) : found->second.*run);
    }
    const Shape shape{std::span<const Index>(sizes)};
    const bool is_lengths = input.kind == graph::InputKind::lengths;
    const bool is_integer = is_lengths || input.kind == graph::InputKind::tokens;
    inputs[input.name] =
        full(shape, is_lengths ? 1.0 : 0.0, is_integer ? i32 : graph.params().dtype());
  }
  return graph(inputs);
}

// The format wants the shapes of outputs: what changes as an input's size does has its name.
void set_shapes_of_outputs(const Graph& graph, onnx::Model& model) {
  const auto any = trial_sizes(graph);
  const auto first = outputs_at(graph, any, &TrialSizes::first),
             second = outputs_at(graph, any, &TrialSizes::second);
  for (onnx::Value& output : model.outputs) {
    const Shape &from = first.at(output.name).shape(), &to = second.at(output.name).shape();
    for (int axis = 0; axis < from.rank(); ++axis) {
      std::string dim = from[axis] == to[axis] ? std::to_string(to[axis])
                                               : fmt::format("{}_{}", output.name, axis);
      for (const auto& size : any)
        if (from[axis] == size.second.first && to[axis] == size.second.second) dim = size.first;
      output.dims.push_back(dim);
    }
  }
}

class Exporter {
 public:
  explicit Exporter(const Graph& graph) : graph_(graph) {
    model_.opset = opset;
    names_.resize(static_cast<std::size_t>(graph.value_count()));
    for (std::size_t i = 0; i < names_.size(); ++i) names_[i] = fmt::format("value.{}", i);
  }

  onnx::Model exported() {
    for (const graph::Input& input : graph_.inputs()) add_input(input);
    for (const graph::Node& node : graph_.nodes()) {
      node_ = &node;
      std::visit([&](const auto& operation) { (*this)(operation); }, node.operation);
    }
    for (const graph::Output& output : graph_.outputs()) {
      model_.nodes.push_back(
          {"Identity", "output." + output.name, {name(output.value)}, {output.name}});
      model_.outputs.push_back({output.name, real_type(), {}});
    }
    set_shapes_of_outputs(graph_, model_);
    return std::move(model_);
  }

  void operator()(const Embedding& layer) { emit("Gather", {array(layer.w), in(0)}); }
  void operator()(const Linear& layer) { emit_last(linear(layer, in(0))); }
  void operator()(const LayerNorm& layer) {
    emit("LayerNormalization", {in(0), array(layer.gain), array(layer.bias)},
         {{"axis", Attribute::of(std::int64_t{-1})},
          {"epsilon", Attribute::of(static_cast<float>(layer.epsilon))}});
  }
  void operator()(const Dropout& layer) { emit_last(dropped(layer.rate, in(0))); }
  void operator()(const graph::OneHot& op) {
    const Tensor values = tensor({2}, {0, 1}, op.dtype);
    emit("OneHot", {in(0), integer(op.classes), constant(values)},
         {{"axis", Attribute::of(std::int64_t{-1})}});
  }
  void operator()(const graph::Constant& op) {
    emit("Identity", {op.param.defined() ? array(op.param) : constant(op.value)});
  }
  void operator()(graph::Function op) {
    constexpr std::array operations{
        "Add",  "Sub",  "Mul",     "Div",  "MatMul",   "Less",  "GreaterOrEqual", "Or",    "Where",
        "Sqrt", "Tanh", "Sigmoid", "Relu", "Identity", "Shape", "Range",          "Expand"};
    Names inputs;
    for (std::size_t i = 0; i < node_->inputs.size(); ++i) inputs.push_back(in(i));
    emit(operations[static_cast<std::size_t>(op)], inputs);
  }
  void operator()(const graph::Softmax& op) {
    emit(op.log ? "LogSoftmax" : "Softmax", {in(0)},
         {{"axis", Attribute::of(std::int64_t{op.axis})}});
  }
  void operator()(const graph::Concat& op) {
    Names inputs;
    for (std::size_t i = 0; i < node_->inputs.size(); ++i) inputs.push_back(in(i));
    emit("Concat", inputs, {{"axis", Attribute::of(std::int64_t{op.axis})}});
  }
  void operator()(const graph::Select& op) {
    emit("Gather", {in(0), integer(op.index)}, {{"axis", Attribute::of(std::int64_t{op.axis})}});
  }
  void operator()(const graph::Slice& op) {
    emit("Slice", {in(0), integers({op.begin}), integers({op.end}), integers({op.axis})});
  }
  void operator()(const graph::AddAxes& op) {
    emit("Unsqueeze", {in(0), integers({op.axes.begin(), op.axes.end()})});
  }
  void operator()(const graph::Cast& op) {
    const onnx::Type type = op.dtype == f32   ? onnx::Type::f32
                            : op.dtype == f64 ? onnx::Type::f64
                                              : onnx::Type::i64;
    emit("Cast", {in(0)}, {{"to", Attribute::of(static_cast<std::int64_t>(type))}});
  }
  void operator()(const graph::Permute& op) {
    emit_last(permuted(in(0), Numbers(op.axes.begin(), op.axes.end())));
  }
  void operator()(const graph::Reshape& op) { emit_last(reshaped(in(0), op.sizes)); }

  void operator()(const graph::RecurrentLayers& op) {
    const Index layers = op.layer_count(), directions = op.directions();
    std::string x = in(0);
    std::vector<std::vector<CellArrays>> cells(static_cast<std::size_t>(layers));
    onnx::Node node;
    op.each_cell([&](const auto& cell, Index layer, Index) {
      require_exportable(cell);
      cells[static_cast<std::size_t>(layer)].push_back(arrays_of(cell));
      node = node_of(cell);
    });
    node.attributes.emplace("direction", Attribute::of(std::string(directions == 2 ? "bidirectional"
                                                                   : op.reverse    ? "reverse"
                                                                                   : "forward")));
    if (directions == 2)
      if (const auto found = node.attributes.find("activations"); found != node.attributes.end()) {
        Names& texts = found->second.texts;
        texts.push_back(texts.front());
      }
    Names last_h, last_c;
    for (Index i = 0; i < layers; ++i) {
      if (i > 0) x = dropped(op.dropout(), x);
      node.name = layers == 1 ? node_->name : fmt::format("{}.{}", node_->name, i);
      node.inputs = {x};
      add_weights(node, cells[static_cast<std::size_t>(i)]);
      node.inputs[4] = node_->inputs[1].defined() ? in(1) : "";
      node.inputs[5] = layer_state(2, i, layers, directions);
      if (op.has_cell_state()) node.inputs[6] = layer_state(3, i, layers, directions);
      const std::string y = fresh();
      node.outputs = {y, fresh()};
      last_h.push_back(node.outputs[1]);
      if (op.has_cell_state()) last_c.push_back(node.outputs.emplace_back(fresh()));
      if (!node_names_.insert(node.name).second) node.name = fresh();
      model_.nodes.push_back(node);
      // [T, directions, B, H] -> [T, B, directions H]
      x = directions == 1 ? call("Squeeze", {y, integers({1})})
                          : reshaped(permuted(y, {0, 2, 1, 3}), {0, 0, -1});
    }
    rename(x, 0);
    rename(joined(last_h), 1);
    if (op.has_cell_state()) rename(joined(last_c), 2);
  }

  void operator()(const graph::Attention& op) {
    std::visit([&](const auto& layer) { emit_last(attended(layer, op.causal)); }, op.layer);
  }

 private:
  onnx::Type real_type() const {
    return graph_.params().dtype() == f64 ? onnx::Type::f64 : onnx::Type::f32;
  }

  void add_input(const graph::Input& input) {
    name(input.value) = input.name;
    // Indices are int64 as in NumPy, the lengths of recurrent nodes int32.
    const onnx::Type type = input.kind == graph::InputKind::tokens    ? onnx::Type::i64
                            : input.kind == graph::InputKind::lengths ? onnx::Type::i32
                                                                      : real_type();
    model_.inputs.push_back({input.name, type, input.dims});
  }

  std::string& name(GraphValue value) { return names_[static_cast<std::size_t>(value.index)]; }
  std::string in(std::size_t i) { return name(node_->inputs[i]); }
  std::string fresh() { return fmt::format("{}.{}", node_->name, next_++); }
  // From now on output i of the node is what has this name.
  void rename(const std::string& value, std::size_t i) { name(node_->outputs[i]) = value; }
  void emit_last(const std::string& value) { rename(value, 0); }

  std::string call(const char* operation, Names inputs,
                   std::map<std::string, Attribute> attributes = {}) {
    const std::string result = fresh();
    model_.nodes.push_back({operation, result, std::move(inputs), {result}, std::move(attributes)});
    return result;
  }
  void emit(const char* operation, Names inputs, std::map<std::string, Attribute> attributes = {}) {
    emit_last(call(operation, std::move(inputs), std::move(attributes)));
  }

  // Those of a layer that is called again are there already.
  std::string add_array(onnx::Array array) {
    std::string name = array.name;
    if (arrays_.insert(name).second) model_.arrays.push_back(std::move(array));
    return name;
  }
  std::string array(const Param& param) {
    return add_array(onnx::Array::of(param.name(), param.value()));
  }
  std::string constant(const Tensor& x) { return add_array(onnx::Array::of(fresh(), x)); }
  std::string integers(Numbers numbers) {
    return add_array(onnx::Array::of(fresh(), std::move(numbers)));
  }
  std::string integer(std::int64_t number) {
    onnx::Array array = onnx::Array::of(fresh(), Numbers{number});
    array.dims.clear();
    return add_array(std::move(array));
  }

  std::string reshaped(const std::string& x, Numbers sizes) {
    return call("Reshape", {x, integers(std::move(sizes))});
  }
  std::string permuted(const std::string& x, Numbers axes) {
    return call("Transpose", {x}, {{"perm", Attribute::of(std::move(axes))}});
  }
  std::string dropped(double rate, const std::string& x) {
    return rate == 0 ? x : call("Dropout", {x, constant(scalar(rate, f32))});
  }
  std::string linear(const Linear& layer, const std::string& x) {
    const std::string w = permuted(array(layer.w), {1, 0}), product = call("MatMul", {x, w});
    return layer.b.defined() ? call("Add", {product, array(layer.b)}) : product;
  }
  std::string scaled(const std::string& x, double factor) {
    return call("Mul", {x, constant(scalar(factor, graph_.params().dtype()))});
  }

  template <class C>
  onnx::Node node_of(const C& cell) {
    onnx::Node node{form_of(cell).operation, "", {}, {}};
    node.attributes.emplace("hidden_size", Attribute::of(cell.hidden_size()));
    if constexpr (requires { cell.activation; })
      node.attributes.emplace(
          "activations",
          Attribute::of(Names{cell.activation == Activation::relu ? "Relu" : "Tanh"}));
    if constexpr (requires { cell.reset; })
      node.attributes.emplace("linear_before_reset",
                              Attribute::of(std::int64_t{cell.reset == Reset::after}));
    return node;
  }

  void add_weights(onnx::Node& node, const std::vector<CellArrays>& directions) {
    const auto all = [&](const char* name, const auto& of) {
      std::vector<Tensor> arrays;
      for (const CellArrays& cell : directions) arrays.push_back(of(cell));
      return add_array(onnx::Array::of(node.name + name, stack(arrays)));
    };
    node.inputs.push_back(all(".W", [](const CellArrays& a) { return a.w; }));
    node.inputs.push_back(all(".R", [](const CellArrays& a) { return a.r; }));
    node.inputs.push_back(all(".B", [](const CellArrays& a) { return a.b; }));
    const bool is_lstm = node.operation == "LSTM";
    node.inputs.resize(is_lstm ? 7 : 6);
    if (directions.front().peepholes.defined())
      node.inputs.push_back(all(".P", [](const CellArrays& a) { return a.peepholes; }));
  }

  // Of layer i, [directions, B, H] of the node's input [layers · directions, B, H], if it has one.
  std::string layer_state(std::size_t input, Index i, Index layers, Index directions) {
    if (!node_->inputs[input].defined()) return "";
    if (layers == 1) return in(input);
    return call("Slice", {in(input), integers({i * directions}), integers({(i + 1) * directions}),
                          integers({0})});
  }
  std::string joined(const Names& states) {
    return states.size() == 1 ? states.front()
                              : call("Concat", states, {{"axis", Attribute::of(std::int64_t{0})}});
  }

  // What an attention hides: [B, 1, T] beyond the lengths, [Q, T] later steps; empty if nothing.
  std::string hidden(bool causal) {
    const auto steps = [&](std::size_t i) {
      const std::string count = call("Gather", {call("Shape", {in(i)}), integer(0)});
      return call("Range", {integer(0), count, integer(1)});
    };
    std::string result;
    if (node_->inputs[2].defined()) {
      const std::string lengths =
          call("Unsqueeze",
               {call("Cast", {in(2)}, {{"to", Attribute::of(std::int64_t{7})}}), integers({1, 2})});
      result = call("GreaterOrEqual", {steps(1), lengths});
    }
    if (!causal) return result;
    const std::string later =
        call("Less", {call("Unsqueeze", {steps(0), integers({1})}), steps(1)});
    return result.empty() ? later : call("Or", {result, later});
  }
  // Scores [B, Q, T] or [B, heads, Q, T] -> weights.
  std::string weights(std::string scores, bool causal, bool has_heads) {
    std::string unseen = hidden(causal);
    if (!unseen.empty()) {
      if (has_heads && node_->inputs[2].defined())
        unseen = call("Unsqueeze", {unseen, integers({1})});
      const double never = -std::numeric_limits<double>::infinity();
      scores = call("Where", {unseen, constant(scalar(never, graph_.params().dtype())), scores});
    }
    return call("Softmax", {scores}, {{"axis", Attribute::of(std::int64_t{-1})}});
  }
  // From scores [B, Q, T] the context [Q, B, D] of values [T, B, D].
  std::string context(const std::string& scores, bool causal) {
    const std::string values = permuted(in(1), {1, 0, 2});
    return permuted(call("MatMul", {weights(scores, causal, false), values}), {1, 0, 2});
  }

  std::string dot_scores(const std::string& queries, const std::string& keys) {
    return call("MatMul", {permuted(queries, {1, 0, 2}), permuted(keys, {1, 2, 0})});
  }
  std::string attended(const DotAttention& layer, bool causal) {
    if (!layer.scaled) return context(dot_scores(in(0), in(1)), causal);
    // 1 / √D, with D as it is at run time.
    const std::string size = call("Gather", {call("Shape", {in(0)}), integer(-1)});
    const std::string features =
        call("Cast", {size}, {{"to", Attribute::of(static_cast<std::int64_t>(real_type()))}});
    return context(call("Div", {dot_scores(in(0), in(1)), call("Sqrt", {features})}), causal);
  }
  std::string attended(const GeneralAttention& layer, bool causal) {
    return context(dot_scores(in(0), linear(layer.key, in(1))), causal);
  }
  std::string attended(const AdditiveAttention& layer, bool causal) {
    const std::string q =
        call("Unsqueeze", {permuted(linear(layer.query, in(0)), {1, 0, 2}), integers({2})});
    const std::string k =
        call("Unsqueeze", {permuted(linear(layer.key, in(1)), {1, 0, 2}), integers({1})});
    const std::string scores = linear(layer.score, call("Tanh", {call("Add", {q, k})}));
    return context(call("Squeeze", {scores, integers({-1})}), causal);
  }
  std::string attended(const MultiHeadAttention& layer, bool causal) {
    const Index size = layer.output.w.shape()[0] / layer.heads;
    const auto heads = [&](const std::string& x) { return reshaped(x, {0, 0, layer.heads, size}); };
    const std::string q =
        scaled(linear(layer.query, in(0)), 1 / std::sqrt(static_cast<double>(size)));
    const std::string scores =
        call("MatMul", {permuted(heads(q), {1, 2, 0, 3}),
                        permuted(heads(linear(layer.key, in(1))), {1, 2, 3, 0})});
    const std::string values = permuted(heads(linear(layer.value, in(1))), {1, 2, 0, 3});
    const std::string each = call("MatMul", {weights(scores, causal, true), values});
    return linear(layer.output, reshaped(permuted(each, {2, 0, 1, 3}), {0, 0, -1}));
  }

  const Graph& graph_;
  onnx::Model model_;
  Names names_;  // of the graph's values
  std::set<std::string> arrays_, node_names_;
  const graph::Node* node_ = nullptr;
  int next_ = 0;
};

}  // namespace

void save_onnx(const Graph& graph, const Location& where,
               const std::map<std::string, std::string>& metadata, Site site) {
  const SiteScope scope(site);
  const NoRecord pause;
  if (graph.outputs().empty()) throw ValueError("save_onnx: the graph has no output", site);
  onnx::Model model = Exporter(graph).exported();
  model.metadata = metadata;
  write_file(where, onnx::encoded(model));
}

}  // namespace reel::nn
