#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/message.h>
#include <reel/autograd/ops.h>
#include <reel/nn/exchange/conversion.h>
#include <reel/nn/exchange/onnx_import.h>

/// What each operator of ONNX is in Reel (https://onnx.ai/onnx/operators/).
namespace reel::nn::onnx {
namespace {

using Numbers = std::vector<std::int64_t>;

int axis_of(std::int64_t axis) { return static_cast<int>(std::clamp<std::int64_t>(axis, -8, 8)); }

}  // namespace

void Importer::cast() {
  allow({"to", "saturate"});
  const auto to = static_cast<Type>(integer("to", 0));
  const bool to_integer = to == Type::i64 || to == Type::i32;
  if (!to_integer && to != Type::f32 && to != Type::f64 && to != Type::f16)
    fail(fmt::format("the attribute to is {}, a type that Reel does not have",
                     static_cast<int>(to)));
  set(0, graph_.apply(graph::Cast{to_integer ? i32 : params_.dtype()}, {in(0)}));
}

void Importer::concat() {
  allow({"axis"});
  std::vector<GraphValue> inputs;
  for (std::size_t i = 0; i < node_->inputs.size(); ++i) inputs.push_back(in(i));
  set(0, graph_.apply(graph::Concat{axis_of(integer("axis", 0))}, inputs));
}

void Importer::constant_node() {
  allow({"value", "value_int", "value_ints", "value_float"});
  if (node_->outputs.size() != 1) fail("it has to have one output");
  Array array;
  if (const Attribute* const given = attribute("value")) {
    array = given->value;
  } else if (attribute("value_float")) {
    array = Array::of("", scalar(real("value_float", 0)));
  } else {
    const Attribute* const ints = attribute("value_ints");
    array = Array::of("", ints ? ints->ints : Numbers{integer("value_int", 0)});
    if (!ints) array.dims.clear();
  }
  array.name = node_->outputs[0];
  constants_.push_back(std::move(array));
  arrays_[constants_.back().name] = &constants_.back();
}

void Importer::constant_of_shape() {
  allow({"value"});
  Tensor value = scalar(0, params_.dtype());
  if (const Attribute* const given = attribute("value"))
    value = reel::reshape(given->value.tensor(), Shape{});
  if (value.dtype() != i32) value = value.to(params_.dtype());
  const GraphValue one = graph_.apply(graph::Constant{{}, value}, {});
  set(0, graph_.apply(graph::Function::expand, {one, in(0)}));
}

void Importer::dropout() {
  allow({"ratio", "seed"});
  double rate = static_cast<double>(real("ratio", 0.5f));
  if (has_input(1)) {
    const Array* const given = array(1);
    if (!given) fail("its ratio is computed, but has to be a constant");
    rate = given->tensor().item();
  }
  if (node_->outputs.size() > 1 && readers_.contains(node_->outputs[1])) fail("its mask is read");
  set(0, graph_(Dropout(rate), in(0)));
}

void Importer::flatten() {
  allow({"axis"});
  if (integer("axis", 1) != 1) fail("the attribute axis has to be 1");
  set(0, graph_.apply(graph::Reshape{{0, -1}}, {in(0)}));
}

void Importer::gather() {
  allow({"axis"});
  const std::int64_t axis = integer("axis", 0);
  const Array *const table = array(0), *const index = array(1);
  if (table && table->dims.size() == 2 && axis == 0 && !index) {
    auto found = tables_.find(table->name);
    if (found == tables_.end()) {
      const Tensor values = weights(*table);
      Embedding embed(params_ / part_for(table->name), values.size(0), values.size(1));
      embed.w.set(values);
      found = tables_.emplace(table->name, embed).first;
    }
    return set(0, graph_(found->second, in(1)));
  }
  if (!index || !index->dims.empty())
    fail("it has to look up rows of a matrix of weights, or one element of an axis");
  const auto i = static_cast<Index>(index->tensor().item());
  set(0, graph_.apply(graph::Select{axis_of(axis), i}, {in(0)}));
}

void Importer::gemm() {
  allow({"alpha", "beta", "transA", "transB"});
  if (real("alpha", 1) != 1 || real("beta", 1) != 1 || integer("transA", 0) != 0)
    fail("the attributes alpha and beta have to be 1, and transA 0");
  const Array *const w = array(1), *const b = has_input(2) ? array(2) : nullptr;
  if (!w || (has_input(2) && !b)) fail("its weights and bias have to be constants");
  set(0, linear(w->name, integer("transB", 0) != 0, in(0), b));
}

void Importer::identity() {
  allow({});
  if (const Array* const given = array(0)) {
    arrays_[node_->outputs.at(0)] = given;
    return;
  }
  set(0, in(0));
}

void Importer::layer_normalization() {
  allow({"axis", "epsilon", "stash_type"});
  const Array *const gain = array(1), *const bias = has_input(2) ? array(2) : nullptr;
  if (!gain || gain->dims.size() != 1 || (has_input(2) && !bias))
    fail("its scale has to be a constant vector, and so its bias");
  if (integer("axis", -1) != -1 && integer("axis", -1) != 2)
    fail("the attribute axis has to be that of the last axis, -1");
  const Tensor values = weights(*gain);
  LayerNorm norm(params_ / part_for(node_->name.empty() ? gain->name : node_->name), values.size(0),
                 static_cast<double>(real("epsilon", 1e-5f)));
  norm.gain.set(values);
  if (bias) norm.bias.set(weights(*bias));
  set(0, graph_(norm, in(0)));
}

const Array* Importer::bias_after() {
  const auto readers = readers_.find(node_->outputs.at(0));
  if (readers == readers_.end() || readers->second.size() != 1) return nullptr;
  const Node* const add = readers->second.front();
  if (!add || add->operation != "Add" || add->inputs.size() != 2 || add->outputs.empty())
    return nullptr;
  const std::string& other = add->inputs[add->inputs[0] == node_->outputs[0] ? 1 : 0];
  const auto found = arrays_.find(other);
  if (found == arrays_.end() || found->second->dims.size() != 1) return nullptr;
  done_.insert(add);
  return found->second;
}

// Nodes with the same arrays are one layer.
GraphValue Importer::linear(const std::string& name, bool transposed, GraphValue x,
                            const Array* bias) {
  const auto key = std::tuple(name, transposed, bias);
  if (const auto made = linears_.find(key); made != linears_.end()) return graph_(made->second, x);
  const LinearOptions options{.bias = bias != nullptr};
  const auto table = tables_.find(name);
  Linear layer = [&] {
    if (table != tables_.end() && transposed)
      return Linear(params_ / part_for(bias ? bias->name : node_->outputs.at(0)), table->second,
                    options);
    const Tensor stored = weights(*arrays_.at(name));
    if (stored.rank() != 2) fail("its weights have to be a matrix");
    const Tensor w = transposed ? stored : reel::transpose(stored);
    Linear own(params_ / part_for(name), w.size(1), w.size(0), options);
    own.w.set(w);
    return own;
  }();
  if (bias) {
    const Tensor b = weights(*bias);
    if (b.shape() != layer.b.shape())
      fail(fmt::format("its bias {} is {}, but has to be {}", in_quotes(bias->name),
                       b.shape().str(), layer.b.shape().str()));
    layer.b.set(b);
  }
  return graph_(linears_.emplace(key, layer).first->second, x);
}

void Importer::matmul() {
  allow({});
  const auto found = transposed_.find(input_name(1));
  if (!array(1) && found == transposed_.end()) return function(graph::Function::matmul);
  const Array* const bias = bias_after();
  const GraphValue y = found == transposed_.end() ? linear(input_name(1), false, in(0), bias)
                                                  : linear(found->second, true, in(0), bias);
  set(0, y);
  // The sum is the output of the node that added the bias.
  if (bias) values_[readers_.at(node_->outputs[0]).front()->outputs.at(0)] = y;
}

void Importer::one_hot() {
  allow({"axis"});
  const Array *const depth = array(1), *const values = array(2);
  if (integer("axis", -1) != -1 || !depth || !values ||
      values->tensor().to_vector() != std::vector<double>{0, 1})
    fail("it has to have the axis -1, a constant depth, and the values 0 and 1");
  const auto classes = static_cast<Index>(reel::reshape(depth->tensor(), Shape{}).item());
  set(0, graph_.apply(graph::OneHot{classes, params_.dtype()}, {in(0)}));
}

void Importer::reshape() {
  allow({"allowzero"});
  if (integer("allowzero", 0) != 0) fail("the attribute allowzero is not supported");
  const Numbers sizes = *numbers(1, "shape");
  const std::string& x = input_name(0);
  if (const auto found = exchanged_.find(x);
      found != exchanged_.end() && sizes == Numbers{0, 0, -1})
    return set(0, found->second);
  if (sizes.size() > Shape::max_rank)
    fail(fmt::format("it makes {} axes, and tensors have at most 4", sizes.size()));
  set(0, graph_.apply(graph::Reshape{{sizes.begin(), sizes.end()}}, {in(0)}));
}

void Importer::slice() {
  allow({"starts", "ends", "axes"});
  const auto begin = numbers(1, "starts"), end = numbers(2, "ends"), axes = numbers(3, "axes"),
             steps = numbers(4, "");
  if (!begin || !end || begin->size() != 1 || end->size() != 1 || (axes && axes->size() != 1) ||
      (steps && *steps != Numbers{1}))
    fail("it has to take a range of one axis, in steps of 1");
  set(0, graph_.apply(graph::Slice{axes ? axis_of(axes->front()) : 0, begin->front(), end->front()},
                      {in(0)}));
}

template <bool log>
void Importer::softmax() {
  allow({"axis"});
  constexpr std::int64_t over_last_axis = 13;  // from this opset on
  const std::int64_t axis = integer("axis", model_.opset < over_last_axis ? 1 : -1);
  if (model_.opset < over_last_axis && axis != -1)
    fail("the attribute axis has to be -1 before opset 13, where several axes were one");
  set(0, graph_.apply(graph::Softmax{axis_of(axis), log}, {in(0)}));
}
template void Importer::softmax<true>();
template void Importer::softmax<false>();

void Importer::squeeze() {
  allow({"axes"});
  const auto axes = numbers(1, "axes");
  const std::string& x = input_name(0);
  const auto sequence = sequences_.find(x);
  if (sequence != sequences_.end() && directions_.at(x) == 1 && axes == Numbers{1})
    return set(0, sequence->second);
  if (!axes || axes->size() != 1) fail("it has to remove one axis, which it names");
  set(0, graph_.apply(graph::Select{axis_of(axes->front()), 0}, {in(0)}));
}

void Importer::transpose() {
  allow({"perm"});
  const Attribute* const perm = attribute("perm");
  if (const Array* const weights = array(0)) {
    if (weights->dims.size() != 2 || (perm && perm->ints != Numbers{1, 0}))
      fail("of weights only matrices can be transposed");
    transposed_[node_->outputs.at(0)] = weights->name;
    return;
  }
  if (!perm) fail("the attribute perm is missing");
  const std::string& x = input_name(0);
  if (const auto found = sequences_.find(x);
      found != sequences_.end() && perm->ints == Numbers{0, 2, 1, 3}) {
    exchanged_[node_->outputs.at(0)] = found->second;
    directions_[node_->outputs[0]] = directions_.at(x);
    return;
  }
  graph::Permute permute;
  for (const std::int64_t axis : perm->ints) permute.axes.push_back(axis_of(axis));
  set(0, graph_.apply(permute, {in(0)}));
}

void Importer::unsqueeze() {
  allow({"axes"});
  const auto axes = numbers(1, "axes");
  if (!axes || axes->empty()) fail("it has to name the axes that it adds");
  set(0, graph_.apply(graph::AddAxes{{axes->begin(), axes->end()}}, {in(0)}));
}

}  // namespace reel::nn::onnx
