#pragma once

#include <string>
#include <vector>

#include <reel/autograd/params.h>
#include <reel/nn/named_tensors.h>

namespace reel::nn {

/// Whose names, layouts and order of gates the weights in a file have: Reel's, as from_params gives
/// them; those of PyTorch's state_dict; those of Keras 3, under `Variable.path`; those of Flax,
/// flattened with "/". docs/migrating.md has all of them.
enum class GateOrder { reel, torch, keras, flax };

/// How arrays have to fit a model.
struct LoadOptions {
  /// Parameters without an array keep their values, and arrays without a parameter are left: the
  /// report lists both.
  bool partial = false;
  /// f64 is rounded for a model in f32. The other way is always possible.
  bool round = false;
};

/// What `load_weights` did not use.
struct LoadReport {
  std::vector<std::string> missing;  ///< arrays of the model that the source does not have
  std::vector<std::string> unused;   ///< names of the source

  bool complete() const { return missing.empty() && unused.empty(); }
  /// "2 arrays are missing: ...; 1 was not used: ...", or "all weights were loaded".
  std::string str() const;
};

/// The weights of a model as another framework names and arranges them; the numbers are the same.
/// PyTorch's second bias is zero except in the candidate of a GRU, as there is a sum of two.
/// Throws ValueError, naming the part, for a layer that the framework does not have, such as an
/// Sru, or for two parts that would get the same name.
NamedTensors weights_as(GateOrder order, const Params& params, Site site = {});

/// Gives a model the weights of another framework's. Biases that are both absent are zeros. Where
/// names in Keras and Flax have more in front or between, as in `sequential/lstm/lstm_cell/kernel`,
/// the parts that say the layer, the direction and the array decide.
/// Throws, having changed nothing: ValueError, with the first differences and both shapes, for
/// arrays that are missing, have another shape, or belong to no parameter, for names that fit
/// twice, and for a layer that the framework does not have; DTypeError for numbers that would be
/// rounded.
LoadReport load_weights(const NamedTensors& source, GateOrder order, const Params& params,
                        const LoadOptions& options = {}, Site site = {});

/// Whose the names are. Throws ValueError if they are no one's, as the order of gates cannot be
/// told from the numbers.
GateOrder gate_order_of(const NamedTensors& source, Site site = {});

}  // namespace reel::nn
