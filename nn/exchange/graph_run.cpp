#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/message.h>
#include <reel/autograd/ops.h>
#include <reel/nn/exchange/graph.h>

/// Running a graph: what each operation is in Reel.
namespace reel::nn {
namespace {

using namespace graph;

Tensor state_at(const Tensor& all, Index i) { return all.defined() ? all[i] : Tensor(); }

// The states of cell i, and the reverse: h and c are [layers · directions, B, H].
void read_state(HiddenState& state, const Tensor& h, const Tensor&, Index i) {
  state.h = state_at(h, i);
}
void read_state(LstmState& state, const Tensor& h, const Tensor& c, Index i) {
  state = {state_at(h, i), state_at(c, i)};
}
template <class S>
void read_state(BidirectionalState<S>& state, const Tensor& h, const Tensor& c, Index i) {
  read_state(state.forward, h, c, 2 * i);
  read_state(state.backward, h, c, 2 * i + 1);
}

struct LastStates {
  std::vector<Tensor> h, c;

  void add(const HiddenState& state) { h.push_back(state.h); }
  void add(const LstmState& state) {
    h.push_back(state.h);
    c.push_back(state.c);
  }
  template <class S>
  void add(const BidirectionalState<S>& state) {
    add(state.forward);
    add(state.backward);
  }
};

Shape reshaped(const Shape& before, const std::vector<Index>& sizes) {
  std::array<Index, Shape::max_rank> after{};
  Index known = 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    after[i] = sizes[i] == 0 ? before[static_cast<int>(i)] : sizes[i];
    if (after[i] >= 0) known *= after[i];
  }
  for (Index& size : after)
    if (size < 0) size = known == 0 ? 0 : before.size() / known;
  return Shape(std::span<const Index>(after).first(sizes.size()));
}

// One call of a node.
class Run {
 public:
  Run(std::span<const Tensor> inputs, const Mode& mode) : in_(inputs), mode_(mode) {}

  std::vector<Tensor> operator()(const Embedding& layer) const { return {layer(in_[0], mode_)}; }
  std::vector<Tensor> operator()(const Linear& layer) const { return {layer(in_[0])}; }
  std::vector<Tensor> operator()(const LayerNorm& layer) const { return {layer(in_[0])}; }
  std::vector<Tensor> operator()(const Dropout& layer) const { return {layer(in_[0], mode_)}; }
  std::vector<Tensor> operator()(const OneHot& op) const {
    return {reel::one_hot(in_[0], op.classes, op.dtype)};
  }
  std::vector<Tensor> operator()(const Constant& op) const {
    return {op.param.defined() ? op.param.tensor() : op.value};
  }
  std::vector<Tensor> operator()(const Softmax& op) const {
    return {op.log ? reel::log_softmax(in_[0], op.axis) : reel::softmax(in_[0], op.axis)};
  }
  std::vector<Tensor> operator()(const Concat& op) const { return {reel::concat(in_, op.axis)}; }
  std::vector<Tensor> operator()(const Select& op) const {
    return {reel::select(in_[0], op.axis, op.index)};
  }
  // A state that is not given stays so.
  std::vector<Tensor> operator()(const Slice& op) const {
    if (!in_[0].defined()) return {Tensor()};
    const Index size = in_[0].size(op.axis);
    const auto place = [&](Index i) { return std::clamp(i < 0 ? i + size : i, Index{0}, size); };
    return {reel::slice(in_[0], op.axis, place(op.begin), place(op.end))};
  }
  std::vector<Tensor> operator()(const AddAxes& op) const {
    Tensor x = in_[0];
    const int rank = x.rank() + static_cast<int>(op.axes.size());
    std::vector<int> axes;
    for (const int axis : op.axes) axes.push_back(axis < 0 ? axis + rank : axis);
    std::ranges::sort(axes);
    for (const int axis : axes) x = reel::expand(x, axis);
    return {x};
  }
  std::vector<Tensor> operator()(const Cast& op) const { return {in_[0].to(op.dtype)}; }
  std::vector<Tensor> operator()(const Permute& op) const { return {permute(in_[0], op.axes)}; }
  std::vector<Tensor> operator()(const Reshape& op) const {
    return {reshape(in_[0], reshaped(in_[0].shape(), op.sizes))};
  }

  std::vector<Tensor> operator()(Function op) const { return {value_of(op)}; }

  std::vector<Tensor> operator()(const RecurrentLayers& op) const {
    return std::visit(
        [&](const auto& stack) -> std::vector<Tensor> {
          typename std::decay_t<decltype(stack)>::State state;
          for (Index i = 0; i < std::ssize(stack.layers); ++i)
            read_state(state.layers.emplace_back(), in_[2], in_[3], i);
          SequenceOptions options{.reverse = op.reverse};
          if (in_[1].defined()) options.lengths = in_[1];
          const auto result = stack(in_[0], state, mode_, options);
          LastStates last;
          for (const auto& layer : result.state.layers) last.add(layer);
          if (last.c.empty()) return {result.y, stack_of(last.h)};
          return {result.y, stack_of(last.h), stack_of(last.c)};
        },
        op.layers);
  }

  std::vector<Tensor> operator()(const Attention& op) const {
    return std::visit(
        [&](const auto& layer) -> std::vector<Tensor> {
          std::optional<Tensor> lengths;
          if (in_[2].defined()) lengths = in_[2];
          const AttentionMemory memory = layer.memory(in_[1], lengths);
          return {layer(in_[0], memory, mode_, {.causal = op.causal}).context};
        },
        op.layer);
  }

 private:
  Tensor value_of(Function op) const {
    switch (op) {
      case Function::add:
        return in_[0] + in_[1];
      case Function::sub:
        return in_[0] - in_[1];
      case Function::mul:
        return in_[0] * in_[1];
      case Function::div:
        return in_[0] / in_[1];
      case Function::matmul:
        return reel::matmul(in_[0], in_[1]);
      case Function::less:
        return reel::less(in_[0], in_[1]);
      case Function::greater_equal:
        return reel::greater_equal(in_[0], in_[1]);
      case Function::logical_or:
        return reel::logical_or(in_[0], in_[1]);
      case Function::where:
        return reel::where(in_[0], in_[1], in_[2]);
      case Function::sqrt:
        return reel::sqrt(in_[0]);
      case Function::tanh:
        return reel::tanh(in_[0]);
      case Function::sigmoid:
        return reel::sigmoid(in_[0]);
      case Function::relu:
        return reel::relu(in_[0]);
      case Function::identity:
        return in_[0];
      case Function::shape:
        return tensor({in_[0].rank()},
                      std::vector<Index>(in_[0].shape().begin(), in_[0].shape().end()));
      case Function::range:
        return arange(whole(in_[0]), whole(in_[1]), whole(in_[2]));
      case Function::expand:
        return broadcast_to(in_[0], shape_of(in_[1]));
    }
    return {};
  }

  static Index whole(const Tensor& x) { return static_cast<Index>(x.item()); }
  static Shape shape_of(const Tensor& sizes) {
    std::vector<Index> result;
    for (const double size : sizes.to_vector()) result.push_back(static_cast<Index>(size));
    return Shape(std::span<const Index>(result));
  }
  static Tensor stack_of(const std::vector<Tensor>& states) { return reel::stack(states); }

  std::span<const Tensor> in_;
  const Mode& mode_;
};

}  // namespace

std::map<std::string, Tensor> Graph::operator()(const std::map<std::string, Tensor>& inputs,
                                                const Mode& mode, Site site) const {
  const SiteScope scope(site);
  std::vector<Tensor> values(static_cast<std::size_t>(values_));
  const auto at = [&](GraphValue value) -> Tensor& {
    return values[static_cast<std::size_t>(value.index)];
  };
  std::vector<std::string> names;
  for (const Input& input : inputs_) {
    names.push_back(input.name);
    const auto given = inputs.find(input.name);
    if (given != inputs.end())
      at(input.value) = given->second;
    else if (input.kind != InputKind::state)
      throw ValueError(fmt::format("the graph's input {} is missing", input.name), site);
  }
  for (const auto& [name, value] : inputs)
    if (std::ranges::find(names, name) == names.end())
      throw ValueError(
          fmt::format("the graph has no input {}{}", in_quotes(name), suggestion(name, names)),
          site);
  for (const Node& node : nodes_) {
    std::vector<Tensor> of_node;
    for (const GraphValue value : node.inputs)
      of_node.push_back(value.defined() ? at(value) : Tensor());
    std::vector<Tensor> results = std::visit(Run(of_node, mode), node.operation);
    for (std::size_t i = 0; i < results.size(); ++i) at(node.outputs[i]) = std::move(results[i]);
  }
  std::map<std::string, Tensor> outputs;
  for (const graph::Output& output : outputs_) outputs.emplace(output.name, at(output.value));
  return outputs;
}

}  // namespace reel::nn
