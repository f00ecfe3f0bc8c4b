#pragma once

#include <reel/autograd/params.h>

/// Initial values for parameters.
namespace reel::nn::init {

/// Every element is `value`. Throws ValueError unless it is finite.
Initializer constant(double value, Site site = {});
/// Uniform in [-bound, bound). Throws ValueError unless `bound` is a finite number >= 0.
Initializer uniform(double bound, Site site = {});
/// Normal with mean 0 and standard deviation `deviation`. Throws ValueError unless it is a finite
/// number >= 0.
Initializer normal(double deviation, Site site = {});
/// Uniform with bound √(6 / (rows + columns)), for matrices (Glorot and Bengio, 2010).
Initializer xavier_uniform();
/// Random with orthonormal rows or columns, whichever are fewer; a vertical stack of k square
/// blocks (recurrent weights) is initialised block by block (Saxe et al., 2014).
Initializer orthogonal();

/// The identity, for square matrices (Le, Jaitly and Hinton, 2015); a vertical stack of k square
/// blocks is k of them. Throws ShapeError for other shapes.
Initializer identity();

}  // namespace reel::nn::init
