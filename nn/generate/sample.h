#pragma once

#include <vector>

#include <reel/autograd/rng.h>

namespace reel::nn {

/// How to choose a token from a model's logits. The settings apply in this order.
struct Sampling {
  double repetition_penalty = 1;  ///< θ; the logit x of a token seen before becomes x/θ if x > 0,
                                  ///< else θ x, so that θ > 1 makes it less probable
  double temperature = 1;         ///< p = softmax(logits / temperature); 0 takes the largest logit
  Index top_k = 0;                ///< keep the k most probable tokens; 0 keeps all
  double top_p = 1;  ///< keep the fewest most probable tokens that together have p >= top_p
  double min_p = 0;  ///< keep tokens of at least min_p times the probability of the most probable

  /// Throws ValueError unless repetition_penalty is finite and > 0, temperature is finite and >= 0,
  /// top_k >= 0, 0 < top_p <= 1 and 0 <= min_p <= 1.
  void validate(Site site = {}) const;
};

/// A token sampled from the logits of one position: [V], or [1, V], [1, 1, V] ... Ties are broken
/// by index. A logit of -infinity forbids its symbol. Draws one number from `rng`, none at
/// temperature 0. Throws ShapeError for another shape, DTypeError for integers, ValueError for
/// settings out of range, a logit that is NaN or +infinity, if every symbol is forbidden, and for a
/// repetition penalty, which needs the tokens seen. Top-p is the nucleus of Holtzman et al., "The
/// curious case of neural text degeneration", ICLR 2020, min-p that of Nguyen et al., "Turning up
/// the heat: min-p sampling for creative and coherent LLM outputs", 2024.
std::int32_t sample(const Tensor& logits, const Sampling& sampling, Rng& rng, Site site = {});

/// The same with a repetition penalty for the tokens `seen`, each once however often it occurs
/// (Keskar et al., "CTRL: a conditional transformer language model for controllable generation",
/// 2019, for whose logits > 0 the formula is theirs). Throws ValueError also for a token that is
/// not among the V.
std::int32_t sample(const Tensor& logits, const Sampling& sampling,
                    std::span<const std::int32_t> seen, Rng& rng, Site site = {});

/// A token for each row of logits [B, V] -> i32 [B]. Row b draws from rngs[b] alone, one number, so
/// it does not depend on the other rows; `seen` has the tokens of each row, or nothing without a
/// repetition penalty. Throws as above, and ShapeError unless there are B of each.
Tensor sample(const Tensor& logits, const Sampling& sampling, std::span<Rng> rngs,
              std::span<const std::vector<std::int32_t>> seen = {}, Site site = {});

/// A generator for each of `rows`: that of row b is rng.stream("b"), whatever their number.
std::vector<Rng> row_streams(const Rng& rng, Arg<Index> rows, Site site = {});

}  // namespace reel::nn
