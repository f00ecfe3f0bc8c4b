#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <reel/autograd/params.h>
#include <reel/nn/exchange/weights.h>

/// How the parameters of a layer become the arrays of another framework's, and back.
namespace reel::nn::exchange {

/// The values of a layer by the last part of their names: "w_ih".
using Values = std::map<std::string, Tensor, std::less<>>;

/// A layer of a model, with its parameters.
struct Part {
  std::string name, kind;  ///< "rnn.0.forward", "GruCell"
  std::map<std::string, Param, std::less<>> params;

  bool is_recurrent() const { return params.contains("w_hh"); }
  /// Whether it is an Rnn, Gru or Lstm as other frameworks have them.
  bool is_common_cell() const {
    return kind == "RnnCell" || kind == "GruCell" || kind == "LstmCell";
  }
  const Shape& shape(std::string_view param) const { return params.find(param)->second.shape(); }
};

/// The layers of a model, in the order of their creation. A parameter of no layer is a part of its
/// own, without a kind.
std::vector<Part> parts_of(const Params& params);

/// An array of the other framework: `layer/between/leaf`, with the framework's separator.
struct Array {
  std::string layer, leaf;
  Shape shape;
  std::string between = {};    ///< what need not be the same in a file
  std::string direction = {};  ///< what a part of the name between has to begin with
  bool optional = false;
};

/// A layer in both forms.
struct Conversion {
  const Part* part;
  std::vector<Array> arrays;
  std::function<std::vector<Tensor>(const Values&)> to;  ///< in the order of `arrays`
  /// Arrays that are optional may be undefined.
  std::function<Values(const std::vector<Tensor>&)> from;
};

/// A layer whose arrays have other names and the same numbers; names of parameters that it does not
/// have are left out. With `transposed` matrices are [inputs, outputs].
Conversion renamed(const Part& part, const std::vector<std::pair<std::string, std::string>>& names,
                   bool transposed = false);
/// All parameters under their own names.
Conversion unchanged(const Part& part);

/// Where a module of PyTorch has the weights of a recurrent part: `weight_ih` + suffix.
struct TorchPlace {
  std::string module, suffix;
};

/// x with the blocks of its first axis, one for each letter, in another order.
Tensor reordered(const Tensor& x, std::string_view from, std::string_view to);
/// A vector of zeros in the dtype of x.
Tensor zeros_like(const Tensor& x, Index size);
/// Rows begin .. end - 1.
Tensor rows(const Tensor& x, Index begin, Index end);
/// The bias of a PyTorch-like layer from its two, each of which may be undefined, and the second
/// bias of a GRU's candidate; `w` is of their dtype.
Values biases(const Part& part, Tensor of_input, Tensor of_state, const Tensor& w);
/// The same in the other direction: the two biases.
std::vector<Tensor> two_biases(const Values& values);

/// A framework's form of every layer. `source` has the names that it should fit, where there are
/// several ways. They throw ValueError for a layer that the framework does not have. Keras and Flax
/// have matrices as [inputs, outputs].
/// `places` has the modules of parts for which the names alone do not decide.
std::vector<Conversion> as_torch(const std::vector<Part>& parts, const NamedTensors* source,
                                 const std::map<std::string, TorchPlace>& places = {});
/// The arrays of all layers. Throws ValueError for two of the same name.
NamedTensors exported(const std::vector<Conversion>& conversions, GateOrder order);
/// A part's name as one of a module in PyTorch: "_" is appended to parts that nn.Module uses
/// itself, such as `forward`.
std::string torch_name(std::string_view part);
Conversion as_keras(const Part& part);
Conversion as_flax(const Part& part);

/// Throws ValueError: the framework has no such layer.
[[noreturn]] void refuse(const Part& part, std::string_view framework);

}  // namespace reel::nn::exchange
