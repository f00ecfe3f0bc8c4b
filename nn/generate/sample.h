#pragma once

#include <reel/autograd/rng.h>

namespace reel::nn {

/// How to choose a token from a model's logits. The three settings apply in this order.
struct Sampling {
  double temperature = 1;  ///< p = softmax(logits / temperature); 0 takes the largest logit
  Index top_k = 0;         ///< keep the k most probable tokens; 0 keeps all
  double top_p = 1;        ///< keep the fewest most probable tokens that together have p >= top_p

  /// Throws ValueError unless temperature is finite and >= 0, top_k >= 0 and 0 < top_p <= 1.
  void validate(Site site = {}) const;
};

/// A token sampled from the logits of one position: [V], or [1, V], [1, 1, V] ... Ties are broken
/// by index. A logit of -infinity forbids its symbol. Draws one number from `rng`, none at
/// temperature 0. Throws ShapeError for another shape, DTypeError for integers, ValueError for
/// settings out of range, a logit that is NaN or +infinity, and if every symbol is forbidden. Top-p
/// is the nucleus of Holtzman et al., "The curious case of neural text degeneration", ICLR 2020.
std::int32_t sample(const Tensor& logits, const Sampling& sampling, Rng& rng, Site site = {});

}  // namespace reel::nn
