#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <reel/nn/exchange/graph.h>
#include <reel/nn/exchange/onnx_file.h>

namespace reel::nn::onnx {

/// Makes a Graph of the nodes of an ONNX model, in their order. Throws Unreadable.
class Importer {
 public:
  explicit Importer(const Model& model);
  Graph imported();

 private:
  using Handler = void (Importer::*)();
  static const std::map<std::string_view, Handler>& handlers();

  // Of the current node.
  [[noreturn]] void fail(const std::string& what) const;
  /// Throws for an attribute that is not one of these.
  void allow(std::initializer_list<std::string_view> attributes) const;
  const Attribute* attribute(std::string_view name) const;
  std::int64_t integer(std::string_view name, std::int64_t otherwise) const;
  float real(std::string_view name, float otherwise) const;
  std::string text(std::string_view name, const char* otherwise) const;
  bool has_input(std::size_t i) const;
  const std::string& input_name(std::size_t i) const;
  /// Throws if it is not there.
  GraphValue in(std::size_t i);
  /// The array that is the input; null if it is computed.
  const Array* array(std::size_t i) const;
  /// Whole numbers that are input i, or in older opsets the attribute; nothing if neither is there.
  std::optional<std::vector<std::int64_t>> numbers(std::size_t i, std::string_view name) const;
  void set(std::size_t output, GraphValue value);
  void function(graph::Function f);

  // What a name stands for.
  GraphValue value(const std::string& name);
  GraphValue constant(const Array& array);
  /// The values of weights, in the dtype of the model.
  Tensor weights(const Array& array) const;
  /// "rnn" of "rnn.weight"; a name for a part of the store, used once.
  std::string part_for(const std::string& name);

  template <graph::Function f>
  void of_function() {
    allow({});
    function(f);
  }
  void cast();
  void concat();
  void constant_node();
  void constant_of_shape();
  void dropout();
  void flatten();
  void gather();
  void gemm();
  void identity();
  void layer_normalization();
  void matmul();
  void one_hot();
  void reshape();
  void slice();
  template <bool log>
  void softmax();
  void squeeze();
  void transpose();
  void unsqueeze();
  template <class C>
  void recurrent();

  GraphValue linear(const std::string& array_name, bool transposed, GraphValue x,
                    const Array* bias);
  /// The array of a bias that the only reader of the node's output adds; the reader is then done.
  const Array* bias_after();
  void mark_as_state(const std::string& name);

  const Model& model_;
  Params params_;
  Graph graph_;
  std::map<std::string, GraphValue> values_;
  std::map<std::string, const Array*> arrays_;
  std::vector<Array> constants_;  // of Constant nodes
  std::map<std::string, std::vector<const Node*>> readers_;
  std::map<std::string, const Node*> makers_;
  std::map<std::string, std::string> transposed_;  // arrays by the names of their transposes
  std::map<std::string, Embedding> tables_;        // by the names of their arrays
  std::map<std::tuple<std::string, bool, const Array*>, Linear> linears_;
  std::set<std::string> parts_;  // names that are taken
  std::set<const Node*> done_;
  /// The outputs [T, D, B, H] of recurrent nodes as [T, B, D H], and the same with the axes D and B
  /// exchanged.
  std::map<std::string, GraphValue> sequences_, exchanged_;
  std::map<std::string, Index> directions_;
  const Node* node_ = nullptr;
};

}  // namespace reel::nn::onnx
