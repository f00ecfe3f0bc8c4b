#pragma once

#include <reel/autograd/tensor.h>

#include <nlohmann/json.hpp>

#include <functional>
#include <map>
#include <string>

/// The evals of GradBench (github.com/gradbench/gradbench), written in ops of Reel from their
/// descriptions.
namespace gradbench {

using Json = nlohmann::json;
using reel::Tensor;
using reel::Tensors;

/// A function of an eval whose input has been read: what is timed, and its result as JSON.
struct Prepared {
  std::function<Tensors()> compute;
  std::function<Json(const Tensors&)> output;
};
/// By the name of the function, given its input.
using Module = std::map<std::string, std::function<Prepared(const Json& input)>>;

Module hello();
Module saddle();
Module particle();
Module lse();
Module llsq();
Module kmeans();
Module ode();
Module gmm();
Module lstm();

/// Numbers or rows of numbers, in f64.
Tensor vector_of(const Json& numbers);
Tensor matrix_of(const Json& rows);
/// A number, a list of numbers or a list of rows, for rank 0, 1 and 2.
Json to_json(const Tensor& x);
/// That of the first tensor.
Json first_to_json(const Tensors& outputs);

}  // namespace gradbench
