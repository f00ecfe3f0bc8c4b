#pragma once

#include <optional>
#include <vector>

#include <reel/nn/init.h>
#include <reel/nn/selection.h>

namespace reel::nn {

/// An initializer for some parameters: `{"*.w_hh", init::orthogonal()}`.
struct InitialValues {
  Selection params;
  Initializer init;
};

/// Gives the parameters of a model new initial values by a scheme, of which the first entry that
/// selects a parameter counts; one that no entry selects keeps its value.
///
///     nn::initialize(params, {{"*.b", init::constant(0)}, {"*", init::uniform(0.1)}});
///
/// "*" is everything: biases, an LSTM's forget bias and the gains of layer norm too, unless an
/// entry before it selects them. A parameter draws from the stream of its name, of the store's
/// generator or of `rng`: it gets the numbers that it would have if it had been created with that
/// initializer, whatever else the scheme has.
///
/// Throws ValueError for an empty scheme or initializer and for an entry that selects none of the
/// parameters, or only such as earlier entries select; ShapeError, naming the parameter, where an
/// initializer does not fit. No value has changed then.
void initialize(const Params& params, const std::vector<InitialValues>& scheme,
                const std::optional<Rng>& rng = {}, Site site = {});

}  // namespace reel::nn
