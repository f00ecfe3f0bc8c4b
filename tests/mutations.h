#pragma once

#include <memory>
#include <string>
#include <vector>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>

/// Deliberately wrong gradients, each beside its correct twin, for the checker to be tested on.
namespace reel::testing {
using namespace op;

struct Mutation {
  std::string name;
  int order;  ///< the order at which it is wrong; the orders below are right
  std::vector<Tensor> inputs;
  TensorFunction wrong, right;
};

/// Ops whose rule or kernel is wrong.
std::vector<Mutation> op_mutations();
/// Fused layers over a sequence whose backward kernel is wrong.
std::vector<Mutation> recurrent_mutations();
/// Functions of right ops that do not give their values' gradient.
std::vector<Mutation> function_mutations();

/// Makes a pair of functions from an op that is wrong when its attributes say so. The inputs are
/// drawn from the op's first sample; several outputs are joined.
template <class Attr>
Mutation mutation_of(const Definition<Attr>& definition, int order, const Attr& wrong,
                     const Attr& right) {
  const auto op = std::make_shared<const Op<Attr>>(definition);
  const auto with = [op](const Attr& attr) {
    return [op, attr](std::span<const Tensor> x) {
      std::vector<const Tensor*> pointers;
      for (const Tensor& input : x) pointers.push_back(&input);
      const Tensors outputs = op->all(pointers, attr, {});
      if (outputs.size() == 1) return outputs[0];
      std::vector<Tensor> flat;
      for (const Tensor& y : outputs) flat.push_back(reshape(y, {-1}));
      return concat(flat, 0);
    };
  };
  Mutation mutation{definition.name, order, {}, with(wrong), with(right)};
  Rng rng(3);
  for (const Generator& generator : op->spec().samples[0].inputs)
    mutation.inputs.push_back(generator.draw(rng, f64));
  return mutation;
}

}  // namespace reel::testing
