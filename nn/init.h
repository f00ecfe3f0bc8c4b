#pragma once

#include <numbers>
#include <vector>

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

/// Which side of a matrix [outputs, inputs] counts: with the inputs of a unit the variance of
/// activations stays the same from layer to layer, with its outputs that of gradients.
enum class Fan { in, out };
/// The factor by which the deviation of weights makes up for a nonlinearity; the values are
/// PyTorch's.
inline constexpr double linear_gain = 1, sigmoid_gain = 1, tanh_gain = 5.0 / 3,
                        relu_gain = std::numbers::sqrt2;
/// √(2 / (1 + slope²))
double leaky_relu_gain(Arg<double> slope = 0.01);

/// The options of kaiming_uniform and kaiming_normal.
struct KaimingOptions {
  Fan fan = Fan::in;
  double gain = relu_gain;
};
/// Uniform with bound gain·√(3 / fan), for matrices (He et al., "Delving deep into rectifiers",
/// 2015). Throws ValueError unless the gain is a finite number >= 0.
Initializer kaiming_uniform(const KaimingOptions& options = {}, Site site = {});
/// Normal with standard deviation gain / √fan; otherwise as kaiming_uniform.
Initializer kaiming_normal(const KaimingOptions& options = {}, Site site = {});

/// Random with orthonormal rows or columns, whichever are fewer; a vertical stack of k square
/// blocks (recurrent weights) is initialised block by block (Saxe et al., 2014).
Initializer orthogonal();

/// `scale` times the identity, for square matrices (Le, Jaitly and Hinton, "A simple way to
/// initialize recurrent networks of rectified linear units", 2015); a vertical stack of k square
/// blocks is k of them. Throws ValueError for a scale that is not finite; ShapeError for other
/// shapes.
Initializer identity(Arg<double> scale = 1, Site site = {});

/// Each unit of a matrix [outputs, inputs] has `connections` inputs, chosen at random, with normal
/// weights of this standard deviation; the other weights are 0 (Martens, "Deep learning via
/// Hessian-free optimization", 2010, with 15). Throws ValueError unless connections > 0 and the
/// deviation is a finite number >= 0; ShapeError for a matrix of fewer inputs.
Initializer sparse(Arg<Index> connections = 15, Arg<double> deviation = 1, Site site = {});

/// The i-th initializer for the i-th of the equal blocks of rows that make up a parameter, such as
/// the gates of w_hh or b, in the order of conventions.md: `per_gate({input, forget, candidate,
/// output})`. A block is a matrix or a bias of its own to its initializer. Throws ValueError for an
/// empty list or an empty initializer; ShapeError for a number of rows that is not divisible.
Initializer per_gate(std::vector<Initializer> blocks, Site site = {});

}  // namespace reel::nn::init
