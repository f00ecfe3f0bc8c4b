#pragma once

#include <string>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/ops.h>

namespace reel::testing {

/// A function in ops.h that is composed of registered ops instead of being one itself.
struct Composition {
  const char* name;
  TensorFunction call;  ///< of one matrix [4, 6]
};

inline const std::vector<Composition>& compositions() {
  using In = std::span<const Tensor>;
  static const std::vector<Composition> all{
      {"select", [](In x) { return select(x[0], 1, -2); }},
      {"split",
       [](In x) {
         return split(x[0], {1, 2, 3}, 1)[1];
       }},
  };
  return all;
}

/// The names of the ops that a composition runs, in order.
std::string ops_of(const Composition& composition);

}  // namespace reel::testing
