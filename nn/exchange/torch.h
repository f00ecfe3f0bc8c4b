#pragma once

#include <reel/nn/exchange/graph.h>
#include <reel/nn/exchange/weights.h>
#include <reel/nn/files/location.h>

/// Models of PyTorch.
namespace reel::nn {

/// Writes the weights of a model as a safetensors file with PyTorch's names, layouts and biases;
/// see weights_as(GateOrder::torch, ...). Throws as that does, and FileError if writing fails.
void save_torch(const Params& params, const Location& where, Site site = {});

/// The same, and beside the file a Python program of the same name, model.py for model.safetensors:
/// an nn.Module with the layers of the graph, and `load()`, which gives it with these weights. Its
/// forward has the inputs and outputs of the graph in their order, sequences time-major. `metadata`
/// are texts by name for the header of the file. Throws
/// ValueError, naming the layer, for what PyTorch does not have.
void save_torch(const Graph& graph, const Location& where,
                const std::map<std::string, std::string>& metadata = {}, Site site = {});

/// Gives a model the weights of a safetensors file of PyTorch, or of several with an index,
/// `*.index.json`. Throws as load_weights and load_safetensors do, having changed nothing.
LoadReport load_torch(const Location& where, const Params& params, const LoadOptions& options = {},
                      Site site = {});

}  // namespace reel::nn
