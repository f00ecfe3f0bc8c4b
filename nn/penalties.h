#pragma once

#include <reel/autograd/recurrent.h>
#include <reel/autograd/tensor.h>

/// Penalties on the outputs y [T, B, H] of a recurrent layer, to be added to a loss (Merity, Keskar
/// and Socher, "Regularizing and optimizing LSTM language models", 2018). Both are means over the
/// steps within `lengths`, i32 [B], if these are given; what y holds in the padding has no effect.
/// Throw ShapeError unless y is [T, B, H], ValueError for a weight that is negative or not finite,
/// or lengths outside 0 .. T.
namespace reel::nn {

/// Activation regularisation (AR): weight · mean(y²). There y is the output after its dropout.
Tensor activation_penalty(const Tensor& y, Arg<double> weight, const Tensor& lengths = {},
                          Site site = {});
/// Temporal activation regularisation (TAR): weight · mean((y_(t+1) - y_t)²); 0 where no row has
/// two steps. There y is the output without dropout.
Tensor temporal_penalty(const Tensor& y, Arg<double> weight, const Tensor& lengths = {},
                        Site site = {});

}  // namespace reel::nn
