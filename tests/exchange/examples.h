#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>

#include <reel/autograd/rng.h>
#include <reel/nn/exchange/graph.h>

/// Models in which each kind of layer occurs that a Graph may have.
namespace reel::testing {

struct ExchangeExample {
  std::string name;
  std::function<void(nn::Graph&, const Params&)> build;
  bool in_torch = true, in_onnx = true;  ///< whether these have its layers

  /// A model with numbers that are all different from 0 and 1.
  nn::Graph made() const;
};

std::span<const ExchangeExample> exchange_examples();

/// Random inputs of 6 steps and 4 rows, states included.
std::map<std::string, Tensor> inputs_of(const nn::Graph& graph, Rng& rng);

}  // namespace reel::testing
