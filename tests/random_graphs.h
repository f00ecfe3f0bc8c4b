#pragma once

#include <set>
#include <string>
#include <vector>

#include <reel/autograd/check/gradcheck.h>

/// Functions composed of random ops of the registry, to look for false alarms of the checker and
/// for gradients that are wrong only in combination.
namespace reel::testing {

struct RandomGraph {
  std::vector<NamedInput> inputs;
  TensorFunction f;
  std::string text;                ///< a line for each input and op
  std::set<std::string_view> ops;  ///< names of the registered ops that it contains
};

/// The graph is a function of the seed and the registry. Every op of the registry can be in it: a
/// sample gives its attributes and shapes, and values of earlier nodes are brought into them and
/// into the domain of its generators.
RandomGraph random_graph(std::uint64_t seed);

struct RandomGraphsReport {
  Index graphs = 0, kinks = 0;
  std::set<std::string_view> ops;
  std::vector<std::string> failures;  ///< seed, graph and report of each
};

/// Checks the graphs of seeds `first` up: order 1 of all, one in four in the slow mode and the
/// others in the fast mode, and order 2 of one in four.
RandomGraphsReport check_random_graphs(Index count, std::uint64_t first);

}  // namespace reel::testing
