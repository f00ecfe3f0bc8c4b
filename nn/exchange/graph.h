#pragma once

#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <reel/nn/attention/additive_attention.h>
#include <reel/nn/attention/dot_attention.h>
#include <reel/nn/attention/general_attention.h>
#include <reel/nn/attention/multi_head_attention.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/dropout.h>
#include <reel/nn/embedding.h>
#include <reel/nn/layer_norm.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>

namespace reel::nn {

/// A value in a Graph: an input, or what one of its nodes returns.
struct GraphValue {
  Index index = -1;  ///< -1: none
  bool defined() const { return index >= 0; }
};

/// What a recurrent layer returns in a Graph: y, and the last states of its layers and directions,
/// [layers · directions, B, H] in PyTorch's order. c is undefined without a cell state, and where
/// layers differ there are no states.
struct GraphSequence {
  GraphValue y, h = {}, c = {};
  operator GraphValue() const { return y; }
};

/// The operations of a Graph beside the layers.
namespace graph {

/// i32 [...] -> [..., classes], 1 at the class and 0 elsewhere.
struct OneHot {
  Index classes;
  DType dtype;
};
/// A number of the model's own that no layer has, or a constant if `param` is undefined.
struct Constant {
  Param param;
  Tensor value;
};
/// Functions of their inputs alone. `shape` is the sizes of x, i32 [rank]; `range` the numbers from
/// begin to end in steps, `expand` x broadcast to such a shape.
enum class Function {
  add,
  sub,
  mul,
  div,
  matmul,
  less,
  greater_equal,
  logical_or,
  where,
  sqrt,
  tanh,
  sigmoid,
  relu,
  identity,
  shape,
  range,
  expand
};
/// softmax or log_softmax over an axis.
struct Softmax {
  int axis;
  bool log;
};
/// The inputs one after another along an axis.
struct Concat {
  int axis;
};
/// Element `index` of an axis, which is removed; from the end if it is negative.
struct Select {
  int axis;
  Index index;
};
/// Elements begin .. end - 1 of an axis; from the end where they are negative.
struct Slice {
  int axis;
  Index begin, end;
};
/// The same numbers in another dtype.
struct Cast {
  DType dtype;
};
/// Axes of size 1 in these places of the result.
struct AddAxes {
  std::vector<int> axes;
};
/// Axis i of the result is axis axes[i] of x.
struct Permute {
  std::vector<int> axes;
};
/// As in ONNX: 0 is the size of that axis before, -1 what is left.
struct Reshape {
  std::vector<Index> sizes;
};
/// Equal layers in one or both directions, as one module of PyTorch or a chain of nodes of ONNX.
struct RecurrentLayers {
  template <class L>
  using Both = Stacked<Bidirectional<L>>;
  std::variant<Stacked<Rnn>, Stacked<Gru>, Stacked<Lstm>, Both<Rnn>, Both<Gru>, Both<Lstm>> layers;
  bool reverse = false;  ///< from the last step to the first

  /// "rnn" of the layers rnn.0, rnn.1, if they are equal with nothing in between; else nothing.
  std::optional<std::string> stack_name() const;
  /// Calls f(cell, layer, direction) for each, in PyTorch's order of states.
  template <class F>
  void each_cell(F&& f) const {
    std::visit([&](const auto& stack) { each_cell_of(stack, f); }, layers);
  }
  /// Of each direction.
  Index layer_count() const;
  Index directions() const { return layers.index() < 3 ? 1 : 2; }
  bool has_cell_state() const { return layers.index() % 3 == 2; }
  /// The rate between the layers, in training.
  double dropout() const;

 private:
  template <class L, class F>
  static void each_cell_of(const Stacked<L>& stack, F&& f) {
    for (std::size_t i = 0; i < stack.layers.size(); ++i) {
      const auto layer = static_cast<Index>(i);
      if constexpr (is_bidirectional<L>) {
        f(stack.layers[i].forward.cell, layer, Index{0});
        f(stack.layers[i].backward.cell, layer, Index{1});
      } else {
        f(stack.layers[i].cell, layer, Index{0});
      }
    }
  }
};
/// An attention from x to a memory, with what it may see.
struct Attention {
  std::variant<DotAttention, GeneralAttention, AdditiveAttention, MultiHeadAttention> layer;
  bool causal;
};

/// What a node may be.
using Operation = std::variant<Embedding, Linear, LayerNorm, Dropout, RecurrentLayers, Attention,
                               OneHot, Constant, Function, Softmax, Concat, Select, Slice, AddAxes,
                               Cast, Permute, Reshape>;

/// The parameters of an operation.
std::vector<Param> params_of(const Operation& operation);

/// A call: an operation with its inputs and outputs.
struct Node {
  std::string name;  ///< of the layer, or a number
  Operation operation;
  /// Of RecurrentLayers x, lengths, h0, c0; of Attention the query, the memory, its lengths.
  std::vector<GraphValue> inputs, outputs;
};

/// What an input is: i32 numbers of symbols, x, i32 lengths, or an initial state, which is zeros
/// where it is not given.
enum class InputKind { tokens, features, lengths, state };
/// A named input of a graph.
struct Input {
  std::string name;
  InputKind kind;
  std::vector<std::string> dims;  ///< numbers, or names of what may be any: "T", "B", "64"
  GraphValue value = {};
};
/// A named output of a graph.
struct Output {
  std::string name;
  GraphValue value;
  bool is_state = false;
};

}  // namespace graph

/// The data flow of a model, for files of other frameworks: which layers there are, and what each
/// of them reads. It is written down as the model computes, a call for each layer:
///
///     nn::Graph graph(params);
///     const auto x = graph.tokens("tokens");
///     const auto y = graph(rnn, graph(embed, x));  // its states are inputs and outputs, too
///     graph.output("logits", graph(head, y));
///     nn::save_onnx(graph, "model.onnx");
///
/// Layers share their parameters with the graph. A graph can be run, with the bits of the model.
class Graph {
 public:
  /// Of a model in this store.
  explicit Graph(Params params) : params_(std::move(params)) {}

  /// The input of symbols, i32 [T, B]. Throws ValueError for a name that is taken or no identifier.
  GraphValue tokens(const std::string& name, Site site = {});
  /// An input x [T, B, size]. Throws ValueError also for a size that is not positive.
  GraphValue features(const std::string& name, Arg<Index> size, Site site = {});
  /// The lengths of the rows, i32 [B]. Throws ValueError as `tokens`.
  GraphValue lengths(const std::string& name = "lengths", Site site = {});
  /// An output of the model. Throws ValueError for a name that is taken or no identifier.
  void output(const std::string& name, GraphValue value, Site site = {});

  /// Layers. Throw ValueError for a value of another graph.
  GraphValue operator()(const Embedding& layer, GraphValue symbols);
  GraphValue operator()(const Linear& layer, GraphValue x);
  GraphValue operator()(const LayerNorm& layer, GraphValue x);
  GraphValue operator()(const Dropout& layer, GraphValue x);
  /// Attention of x [Q, B, D] to a memory [T, B, D]; the same value for self-attention.
  template <class A>
  requires std::constructible_from<decltype(graph::Attention::layer), A> GraphValue
  operator()(const A& layer, GraphValue x, GraphValue memory, GraphValue lengths = {},
             const AttentionOptions& options = {}) {
    return attention({layer, options.causal}, x, memory, lengths, options.mask.has_value());
  }
  /// Rnn, Gru, Lstm, and Stacked and Bidirectional of these in any depth. Where the layers are
  /// equal, their initial states become inputs, `<name>_h0` and `<name>_c0`, zeros if they are not
  /// given, and the last ones outputs, `<name>_h` and `<name>_c`, with `_` for the points of the
  /// layer's name.
  template <Layer L>
  GraphSequence operator()(const L& layer, GraphValue x, GraphValue lengths = {}) {
    return run(layer, x, lengths, false);
  }

  /// i32 -> [..., classes], as one_hot.
  GraphValue one_hot(GraphValue symbols, Arg<Index> classes);
  /// a + b.
  GraphValue add(GraphValue a, GraphValue b) { return apply(graph::Function::add, {a, b}); }
  /// a ∘ b.
  GraphValue mul(GraphValue a, GraphValue b) { return apply(graph::Function::mul, {a, b}); }
  /// Elementwise.
  GraphValue tanh(GraphValue x) { return apply(graph::Function::tanh, {x}); }
  /// Elementwise.
  GraphValue sigmoid(GraphValue x) { return apply(graph::Function::sigmoid, {x}); }
  /// Elementwise.
  GraphValue relu(GraphValue x) { return apply(graph::Function::relu, {x}); }
  /// Over the last axis.
  GraphValue softmax(GraphValue x) { return apply(graph::Softmax{-1, false}, {x}); }
  /// Over the last axis.
  GraphValue log_softmax(GraphValue x) { return apply(graph::Softmax{-1, true}, {x}); }
  /// Along the last axis.
  GraphValue concat(GraphValue a, GraphValue b) { return apply(graph::Concat{-1}, {a, b}); }
  /// y[index], or h[-1] of a state: an element of the first axis.
  GraphValue select(GraphValue x, Arg<Index> index) { return apply(graph::Select{0, index}, {x}); }

  /// Runs the model. Throws ValueError for an input that is missing or unknown.
  std::map<std::string, Tensor> operator()(const std::map<std::string, Tensor>& inputs,
                                           const Mode& mode = Eval{}, Site site = {}) const;

  const Params& params() const { return params_; }
  /// Those of states come last.
  const std::vector<graph::Input>& inputs() const { return inputs_; }
  const std::vector<graph::Output>& outputs() const { return outputs_; }
  const std::vector<graph::Node>& nodes() const { return nodes_; }
  Index value_count() const { return values_; }

  /// An input of any kind and shape. Throws ValueError as `tokens`.
  GraphValue input(graph::Input input, Site site = {});
  /// Says that an input is an initial state, which need not be given.
  void mark_as_state(GraphValue value);
  /// A node with one output, for what has no function here. Throws ValueError for a value that is
  /// undefined or of another graph.
  GraphValue apply(graph::Operation operation, std::vector<GraphValue> inputs);
  /// Recurrent layers with initial states that are values of the graph, or none for zeros. Throws
  /// as `apply`.
  GraphSequence recurrent(std::string_view name, const graph::RecurrentLayers& layers, GraphValue x,
                          GraphValue lengths, GraphValue h0, GraphValue c0);

 private:
  template <class C>
  static constexpr bool is_common =
      std::same_as<C, RnnCell> || std::same_as<C, GruCell> || std::same_as<C, LstmCell>;

  template <class L>
  GraphSequence run(const L&, GraphValue, GraphValue, bool) {
    static_assert(std::same_as<L, void>,
                  "a Graph has Rnn, Gru, Lstm, and Stacked and Bidirectional of these");
    return {};
  }
  template <class C>
  requires is_common<C> GraphSequence run(const Recurrent<C>& layer, GraphValue x,
                                          GraphValue lengths, bool reverse) {
    return recurrent(module_of(layer.cell.w_ih.name()),
                     {Stacked<Recurrent<C>>(Params(), {}, std::vector{layer}), reverse}, x,
                     lengths);
  }
  template <class L>
  GraphSequence run(const Bidirectional<L>& layer, GraphValue x, GraphValue lengths, bool reverse) {
    if constexpr (std::constructible_from<decltype(graph::RecurrentLayers::layers),
                                          Stacked<Bidirectional<L>>>)
      if (layer.merge == Merge::concat && L::can_run_both(layer.forward, layer.backward) &&
          !reverse)
        return recurrent(module_of(module_of(layer.forward.cell.w_ih.name())),
                         {Stacked<Bidirectional<L>>(Params(), {}, std::vector{layer})}, x, lengths);
    const GraphValue there = run(layer.forward, x, lengths, reverse);
    const GraphValue back = run(layer.backward, x, lengths, !reverse);
    return {merged(layer.merge, there, back)};
  }
  template <class... Ls>
  GraphSequence run(const Stacked<Ls...>& stack, GraphValue x, GraphValue lengths, bool reverse) {
    if constexpr (std::constructible_from<decltype(graph::RecurrentLayers::layers), Stacked<Ls...>>)
      if (const graph::RecurrentLayers one{stack, reverse}; const auto name = one.stack_name())
        return recurrent(*name, one, x, lengths);
    detail::each_layer(stack.layers, [&](auto i, const auto& layer) {
      const GraphValue below = link(stack.links, i, x);
      const GraphValue y =
          run(layer, i == 0 ? below : (*this)(stack.links.dropout, below), lengths, reverse);
      x = joined(stack.links, i, below, y);
    });
    return {x};
  }

  void add_output(const graph::Output& output, Site site);
  void require(GraphValue value, Site site) const;
  GraphValue constant(double value);
  GraphSequence recurrent(std::string_view name, const graph::RecurrentLayers& layers, GraphValue x,
                          GraphValue lengths);
  GraphValue attention(graph::Attention layer, GraphValue x, GraphValue memory, GraphValue lengths,
                       bool has_mask);
  GraphValue merged(Merge merge, GraphValue there, GraphValue back);
  GraphValue link(const StackLinks& links, std::size_t i, GraphValue below);
  GraphValue joined(const StackLinks& links, std::size_t i, GraphValue x, GraphValue y);
  static constexpr std::size_t all = std::numeric_limits<std::size_t>::max();
  /// The inputs from `required` on may be undefined.
  std::vector<GraphValue> add_node(std::string name, graph::Operation operation,
                                   std::vector<GraphValue> inputs, std::size_t outputs,
                                   std::size_t required = all);

  Params params_;
  std::vector<graph::Input> inputs_;
  std::vector<graph::Output> outputs_;
  std::vector<graph::Node> nodes_;
  Index values_ = 0;
};

}  // namespace reel::nn
