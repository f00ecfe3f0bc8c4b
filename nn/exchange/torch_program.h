#pragma once

#include <string>

#include <reel/nn/exchange/graph.h>
#include <reel/nn/named_tensors.h>

namespace reel::nn::exchange {

/// A Python program with an nn.Module of the graph that loads the weights of a file beside it.
/// Throws ValueError, naming the layer, for what PyTorch does not have.
std::string torch_program(const Graph& graph, const std::string& weights_file);
/// The weights of that module.
NamedTensors torch_weights(const Graph& graph);

}  // namespace reel::nn::exchange
